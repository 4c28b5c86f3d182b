use grey_core::act::{Close, Knob, KnobFile, Ledger, Record, Value};

use super::list::{State, rows, table};

fn begin(id: u64, boot: &str) -> Record {
    Record::Begin {
        id,
        at: 1_795_237_200_000 + id,
        boot: boot.to_owned(),
        pid: 9,
        kind: "limit".to_owned(),
        target: "/web.service".to_owned(),
        reason: "by hand".to_owned(),
    }
}

fn intent(id: u64, step: u32) -> Record {
    Record::Intent {
        id,
        step,
        knob: Knob::cgroup("/web.service", 42, KnobFile::MemoryHigh),
        old: Value::limit(None, 4096),
        new: Value::number(id << 20),
        leaves: None,
    }
}

fn low(id: u64, old: &str, new: &str) -> Record {
    Record::Intent {
        id,
        step: 0,
        knob: Knob::cgroup("/web.service", 42, KnobFile::MemoryLow),
        old: Value::new(old).unwrap(),
        new: Value::new(new).unwrap(),
        leaves: None,
    }
}

fn closed(id: u64, step: u32, how: Close) -> Record {
    Record::Closed { id, step, how }
}

fn ledger() -> Ledger {
    Ledger::of([
        begin(1, "old"),
        intent(1, 0),
        Record::Kept { id: 1 },
        begin(2, "now"),
        intent(2, 0),
        Record::Kept { id: 2 },
        begin(3, "now"),
        intent(3, 0),
        closed(3, 0, Close::Restored),
        Record::Ended { id: 3 },
        begin(4, "now"),
        intent(4, 0),
        closed(4, 0, Close::Foreign),
        Record::Ended { id: 4 },
        begin(5, "now"),
        intent(5, 0),
        // The beginning of this one is lost.
        intent(6, 0),
        // Everything it did was taken back by its guard.
        begin(7, "now"),
        intent(7, 0),
        closed(7, 0, Close::Restored),
        // It lies right over what 8 did.
        begin(8, "now"),
        low(8, "0", "4096"),
        Record::Kept { id: 8 },
        begin(9, "now"),
        low(9, "4096", "8192"),
    ])
}

#[test]
fn an_actions_state_says_what_rollback_would_do() {
    let states = |acting: bool, boot: Option<&str>| -> Vec<(u64, State)> {
        rows(&ledger(), acting, boot)
            .iter()
            .map(|row| (row.id, row.state))
            .collect()
    };
    assert_eq!(
        states(false, Some("now")),
        [
            (9, State::BrokenOff),
            (8, State::Kept),
            (7, State::Undone),
            (6, State::BrokenOff),
            (5, State::BrokenOff),
            (4, State::Over),
            (3, State::Undone),
            (2, State::Kept),
            (1, State::Over),
        ]
    );
    assert_eq!(states(true, Some("now"))[4], (5, State::UnderWay));
    // Where the boot cannot be told, nothing is taken for over.
    assert_eq!(states(false, None)[8], (1, State::Kept));
}

#[test]
fn the_table_shows_each_file_and_what_became_of_it() {
    let mut rows = rows(&ledger(), false, Some("now"));
    let now = [
        Some("8192"),
        Some("8192"),
        Some("max"),
        Some("max"),
        Some("7"),
        Some("9"),
        Some("max"),
    ];
    for (row, now) in rows.iter_mut().zip(now) {
        row.files[0].now = now.map(str::to_owned);
    }
    rows[7].files[0].error = Some("it is gone".to_owned());
    insta::assert_snapshot!(table(&rows));
}

#[test]
fn a_row_leaves_out_what_is_not_known() {
    let rows = rows(&ledger(), false, Some("now"));
    let json = serde_json::to_value(&rows[3]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "id": 6, "state": "broken_off",
            "files": [{"file": "/web.service/memory.high", "old": "max", "new": "6291456", "open": true}],
        })
    );
}
