//! Screens as a terminal would show them, held against snapshots, and what keys do to them.

mod model;
mod text;
mod verdicts;

use std::time::{Duration, Instant};

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers};
use grey_core::view::{Model, Query};
use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use self::model::{alerting, busy, many, without_memory};
use super::plain::{Plain, alert_line};
use super::{Info, Outcome, Theme, UiState, render};

const GIB: u64 = 1 << 30;

fn info() -> Info {
    Info {
        kernel: "6.12.48".into(),
        elapsed: Duration::from_secs(754),
        interval: Duration::from_secs(1),
        mem_total: Some(16 * GIB),
        mem_available: Some(5 * GIB),
        ..Info::default()
    }
}

fn state() -> UiState {
    UiState::new(Theme::new(true))
}

fn press(state: &mut UiState, keys: &str) -> Outcome {
    let mut outcome = Outcome::Continue;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            '↓' => KeyCode::Down,
            '⇟' => KeyCode::PageDown,
            '⇲' => KeyCode::End,
            key => KeyCode::Char(key),
        };
        outcome = state.on_input(&Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
    outcome
}

fn screen(width: u16, height: u16, model: &Model, state: &mut UiState) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test terminal");
    terminal
        .draw(|frame| render(frame, model, &info(), state))
        .expect("drawn");
    terminal
        .backend()
        .buffer()
        .content
        .chunks(usize::from(width))
        .map(|line| {
            let mut text = String::new();
            let mut columns = line.iter();
            while let Some(cell) = columns.next() {
                text.push_str(cell.symbol());
                // A wide character takes the next cell too.
                if super::figure::width(cell.symbol()) > 1 {
                    columns.next();
                }
            }
            text.trim_end().to_owned() + "\n"
        })
        .collect()
}

#[test]
fn an_empty_model_waits() {
    assert_snapshot!(screen(
        80,
        24,
        &Model::new(Duration::from_secs(1)),
        &mut state()
    ));
}

#[test]
fn a_busy_machine_at_80x24() {
    assert_snapshot!(screen(80, 24, &busy(), &mut state()));
}

#[test]
fn a_busy_machine_at_140x40() {
    assert_snapshot!(screen(140, 40, &busy(), &mut state()));
}

#[test]
fn without_memory_controller_at_80x24() {
    assert_snapshot!(screen(80, 24, &without_memory(), &mut state()));
}

#[test]
fn without_memory_controller_at_140x40() {
    assert_snapshot!(screen(140, 40, &without_memory(), &mut state()));
}

#[test]
fn alerts_at_80x24() {
    assert_snapshot!(screen(80, 24, &alerting(), &mut state()));
}

#[test]
fn alerts_at_140x40() {
    assert_snapshot!(screen(140, 40, &alerting(), &mut state()));
}

#[test]
fn a_filter_being_typed() {
    let mut state = state();
    press(&mut state, "/NGINX");
    assert_snapshot!(screen(80, 24, &busy(), &mut state));
}

#[test]
fn a_tree_by_growth() {
    let mut state = state();
    press(&mut state, "tg");
    assert_snapshot!(screen(140, 40, &busy(), &mut state));
}

#[test]
fn details_at_80x24() {
    let mut state = state();
    press(&mut state, "g");
    screen(80, 24, &busy(), &mut state);
    press(&mut state, "\n↓↓");
    assert_snapshot!(screen(80, 24, &busy(), &mut state));
}

#[test]
fn details_at_140x40() {
    let mut state = state();
    press(&mut state, "g");
    screen(140, 40, &busy(), &mut state);
    press(&mut state, "\n");
    assert_snapshot!(screen(140, 40, &busy(), &mut state));
}

#[test]
fn details_without_memory_controller() {
    let mut state = state();
    screen(80, 24, &without_memory(), &mut state);
    press(&mut state, "\n");
    assert_snapshot!(screen(80, 24, &without_memory(), &mut state));
}

#[test]
fn help_at_80x24() {
    let mut state = state();
    press(&mut state, "?");
    assert_snapshot!(screen(80, 24, &busy(), &mut state));
}

#[test]
fn plain_lines() {
    let mut out = Vec::new();
    let mut plain = Plain::new(10, Query::default());
    let model = alerting();
    plain.tick(&mut out, &model, &info()).expect("written");
    let first = String::from_utf8(std::mem::take(&mut out)).expect("UTF-8");
    assert_snapshot!(first);
    plain.tick(&mut out, &model, &info()).expect("written");
    assert!(out.is_empty(), "nothing changed, nothing said");
    plain
        .once(&mut out, &without_memory(), &info())
        .expect("written");
    assert_snapshot!("plain_once", String::from_utf8(out).expect("UTF-8"));
}

#[test]
fn an_alert_is_one_plain_line_and_a_sample_none() {
    let lines: Vec<String> = model::alert_events()
        .iter()
        .filter_map(alert_line)
        .collect();
    assert_snapshot!(lines.join("\n"));
    assert_eq!(alert_line(&model::sample_event()), None);
}

#[test]
fn every_size_can_be_drawn() {
    for model in [
        busy(),
        without_memory(),
        alerting(),
        Model::new(Duration::ZERO),
    ] {
        for keys in ["", "t", "\t", "\t\t", "\n", "?", "/x", "p"] {
            let mut state = state();
            for (width, height) in
                (0..30)
                    .map(|n| (n * 7, n * 2))
                    .chain([(1, 1), (2, 3), (300, 2), (5, 100), (80, 4)])
            {
                if width == 0 || height == 0 {
                    continue;
                }
                screen(width, height, &model, &mut state);
            }
            press(&mut state, keys);
            for (width, height) in [
                (1, 1),
                (3, 5),
                (10, 8),
                (20, 17),
                (44, 9),
                (110, 17),
                (200, 60),
            ] {
                screen(width, height, &model, &mut state);
            }
        }
    }
}

#[test]
fn the_cursor_stays_on_its_cgroup_when_the_order_changes() {
    let model = busy();
    let mut state = state();
    screen(80, 24, &model, &mut state);
    press(&mut state, "↓↓");
    screen(80, 24, &model, &mut state);
    let on = state.table.on.clone();
    press(&mut state, "S");
    screen(80, 24, &model, &mut state);
    assert_eq!(state.table.on, on);
    assert_ne!(state.table.index, 2);
}

#[test]
fn esc_leaves_the_innermost_thing_first() {
    let model = busy();
    let mut state = state();
    press(&mut state, "/nginx\n\t");
    screen(80, 24, &model, &mut state);
    press(&mut state, "?");
    assert_eq!(press(&mut state, "\x1b"), Outcome::Redraw, "the help");
    assert_eq!(press(&mut state, "\x1b"), Outcome::Redraw, "the filter");
    assert!(state.query().filter.is_empty());
    assert_eq!(press(&mut state, "\x1b"), Outcome::Redraw, "the pane");
    assert_eq!(press(&mut state, "\x1b"), Outcome::Quit);
}

#[test]
fn keys_go_into_the_filter_while_it_is_typed_and_ctrl_c_quits_everywhere() {
    let mut state = state();
    assert_eq!(press(&mut state, "/q"), Outcome::Redraw);
    assert_eq!(state.query().filter, "q");
    let ctrl_c = Input::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(state.on_input(&ctrl_c), Outcome::Quit);
    assert_eq!(press(&mut state, "\x1bq"), Outcome::Quit);
}

#[test]
fn ten_thousand_cgroups_are_drawn_in_time_and_can_be_walked_to_the_end() {
    let model = many(10_000);
    let mut state = state();
    let started = Instant::now();
    for keys in ["", "t", "t/0099\n"] {
        press(&mut state, keys);
        screen(200, 60, &model, &mut state);
    }
    // Some 100 ms a frame unoptimised; the bound leaves room for a busy machine but not for quadratic work.
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    press(&mut state, "\x1b⇲");
    let text = screen(80, 24, &model, &mut state);
    assert_eq!(state.table.index, 9_999);
    assert!(text.contains("job-00000.scope"), "the smallest: {text}");
}
