//! The terminal view over made-up events, for work on its layout: `cargo run --example ui_demo --
//! [busy|nomem|many|empty] [--plain]`. Nothing of that is measured. With the path of a recording (`watch --record`) the
//! view is that of its last second.

mod alerts;
mod scene;

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use grey_core::view::{Query, SortKey};
use grey_user::ui::plain::{Plain, TOP, alert_line};
use grey_user::ui::{Outcome, Tui};

use self::scene::Demo;

const TICK: Duration = Duration::from_secs(1);

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let scene = args
        .iter()
        .find(|arg| !arg.starts_with('-'))
        .map_or("busy", String::as_str);
    let recording = scene.contains("ndjson");
    let mut demo = Demo::new(if recording { "empty" } else { scene });
    if recording {
        demo.play(scene)?;
    }
    for _ in 0..80 {
        if !recording {
            demo.tick();
        }
    }
    if args.iter().any(|arg| arg == "--plain") || !io::stdout().is_terminal() {
        return plain(&mut demo);
    }
    let mut tui = Tui::new()?;
    let mut next = Instant::now() + TICK;
    tui.draw(&demo.model, &demo.info())?;
    loop {
        if crossterm::event::poll(next.saturating_duration_since(Instant::now()))? {
            match tui.on_input(crossterm::event::read()?) {
                Outcome::Continue => {}
                Outcome::Redraw => tui.draw(&demo.model, &demo.info())?,
                Outcome::Quit => return Ok(()),
            }
        } else {
            next += TICK;
            if !recording {
                demo.tick();
            }
            tui.draw(&demo.model, &demo.info())?;
        }
    }
}

fn plain(demo: &mut Demo) -> io::Result<()> {
    let query = Query {
        sort: SortKey::Growth,
        ..Query::default()
    };
    let mut plain = Plain::new(TOP, query);
    for _ in 0..3 {
        for line in demo.tick().iter().filter_map(alert_line) {
            println!("{line}");
        }
        plain.tick(&mut io::stdout(), &demo.model, &demo.info())?;
    }
    Ok(())
}
