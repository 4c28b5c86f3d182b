//! The terminal itself: taken over on `new`, given back on drop and on panic, drawn to in one write a frame.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::sync::Once;
use std::time::{Duration, Instant};

use crossterm::event::Event;
use crossterm::{cursor, execute, terminal};
use grey_core::view::Model;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::Info;
use super::screen::render;
use super::state::{Outcome, UiState};
use super::theme::Theme;

/// Frames are at least this far apart, except that a key is answered at once.
pub const FRAME: Duration = Duration::from_millis(250);

/// The live view on a terminal. While paused it holds a copy of the model.
#[derive(Debug)]
pub struct Tui {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    state: UiState,
    /// What is shown while paused; the caller's model goes on.
    frozen: Option<Model>,
    drawn: Option<Instant>,
}

impl Tui {
    /// Takes over the terminal on stdout: raw mode, alternate screen. Dropping it gives the terminal back, and so
    /// does a panic.
    ///
    /// # Errors
    /// stdout is not a terminal, or the terminal refuses.
    pub fn new() -> io::Result<Tui> {
        if !io::stdout().is_terminal() {
            return Err(io::Error::other("stdout is not a terminal"));
        }
        restore_on_panic();
        terminal::enable_raw_mode()?;
        let entered = execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)
            .and_then(|()| {
                Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(
                    1 << 16,
                    io::stdout(),
                )))
            });
        match entered {
            Ok(terminal) => Ok(Tui {
                terminal,
                state: UiState::new(Theme::from_env()),
                frozen: None,
                drawn: None,
            }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws one frame, whatever the time since the last. While paused it draws what was there when `p` was pressed.
    ///
    /// # Errors
    /// The terminal cannot be written to, for instance because it is gone: the caller ends then.
    pub fn draw(&mut self, model: &Model, info: &Info) -> io::Result<()> {
        if !self.state.paused() {
            self.frozen = None;
        } else if self.frozen.is_none() {
            self.frozen = Some(model.clone());
        }
        let shown = self.frozen.as_ref().unwrap_or(model);
        let state = &mut self.state;
        self.terminal
            .draw(|frame| render(frame, shown, info, state))?;
        self.drawn = Some(Instant::now());
        Ok(())
    }

    /// Whether news are worth a frame yet: false for [`FRAME`] after the last one. Draw on a tick when this holds, and
    /// at once after [`Outcome::Redraw`].
    #[must_use]
    pub fn due(&self) -> bool {
        self.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME)
    }

    /// Takes in a key, or a change of the terminal's size.
    pub fn on_input(&mut self, event: Event) -> Outcome {
        self.state.on_input(&event)
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        // What is left in the buffer would be written over the user's shell.
        let _ = self.terminal.backend_mut().flush();
        restore();
    }
}

/// Gives the terminal back, once: leaving the alternate screen again would put the cursor back to where it was
/// before, over what a panic has written since.
fn restore() {
    if !terminal::is_raw_mode_enabled().unwrap_or(false) {
        return;
    }
    // Nothing can be done about a terminal that is gone.
    let _ = execute!(
        io::stdout(),
        // tmux would take lines of a screen that has grown over to the shell's.
        terminal::Clear(terminal::ClearType::All),
        cursor::MoveTo(0, 0),
        terminal::LeaveAlternateScreen,
        cursor::Show
    );
    let _ = terminal::disable_raw_mode();
}

/// The message of a panic belongs on the user's screen, not on the alternate one that is about to vanish.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}
