//! Several who have the same journal open.

use super::*;

fn attach(scratch: &Scratch) -> Journal {
    Journal::attach(&scratch.dir()).unwrap().unwrap().0
}

#[test]
fn a_second_controller_is_told_who_acts() {
    let scratch = Scratch::new();
    let first = open(&scratch);
    let start = Instant::now();
    let error = Journal::open(&scratch.dir()).unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(2), "it did not wait");
    assert!(matches!(error, JournalError::Held(pid) if pid == std::process::id()));
    assert!(
        error
            .to_string()
            .contains(&format!("(pid {})", std::process::id()))
    );
    drop(first);
    drop(open(&scratch));
}

#[test]
fn a_second_controller_waits_for_the_first_ones_end() {
    let scratch = Scratch::new();
    let (mut first, ..) = open(&scratch);
    let dir = scratch.dir();
    let second = std::thread::spawn(move || Journal::open(&dir).map(|opened| opened.1));
    first.append(&begin(1)).unwrap();
    drop(first);
    assert_eq!(second.join().unwrap().unwrap(), Ledger::of([begin(1)]));
}

#[test]
fn the_right_to_act_is_held_as_long_as_a_copy_of_its_descriptor() {
    let scratch = Scratch::new();
    let (journal, ..) = open(&scratch);
    let guards = journal.lock_fd().unwrap().try_clone_to_owned().unwrap();
    drop(journal);
    assert!(matches!(
        Journal::open(&scratch.dir()),
        Err(JournalError::Held(_))
    ));
    drop(guards);
    drop(open(&scratch));
}

#[test]
fn an_undoer_beside_a_controller_knows_of_it_and_each_learns_what_the_other_noted() {
    let scratch = Scratch::new();
    let (mut controller, ..) = open(&scratch);
    controller.append(&begin(1)).unwrap();
    let mut undoer = attach(&scratch);
    assert!(undoer.lock_fd().is_none());
    assert_eq!(undoer.controller(), Some(std::process::id()));
    assert_eq!(controller.controller(), None);
    assert_eq!(
        Journal::look(&scratch.dir()).unwrap().unwrap().2,
        Some(std::process::id())
    );
    assert_eq!((controller.news(), undoer.news()), (Ok(None), Ok(None)));

    controller.append(&intent(1, 0)).unwrap();
    undoer.append(&closed(1, 0, Close::Restored)).unwrap();
    controller.append(&Record::Ended { id: 1 }).unwrap();
    let all = Ledger::of([
        begin(1),
        intent(1, 0),
        closed(1, 0, Close::Restored),
        Record::Ended { id: 1 },
    ]);
    assert_eq!(controller.news(), Ok(Some(all.clone())));
    assert_eq!(undoer.news(), Ok(Some(all)));
    assert_eq!((controller.news(), undoer.news()), (Ok(None), Ok(None)));

    drop(controller);
    // Nobody else may begin something while it goes on undoing.
    assert_eq!(undoer.controller(), None);
    assert!(undoer.lock_fd().is_some());
}

#[test]
fn only_one_has_its_turn() {
    let scratch = Scratch::new();
    let (controller, ..) = open(&scratch);
    let undoer = attach(&scratch);
    let turn = controller.turn().unwrap();
    assert!(undoer.turn().is_none());
    drop(turn);
    let turn = undoer.turn().unwrap();
    assert!(controller.turn().is_none());
    drop(turn);
    assert!(controller.turn().is_some());
}

#[test]
fn no_record_of_two_appenders_and_a_torn_one_between_them_is_lost() {
    let scratch = Scratch::new();
    drop(open(&scratch));
    let appender = |from: u64| {
        let dir = scratch.dir();
        std::thread::spawn(move || {
            let mut journal = Journal::attach(&dir).unwrap().unwrap().0;
            for id in from..from + 150 {
                journal.append(&begin(id)).unwrap();
            }
        })
    };
    let threads = [appender(1000), appender(2000)];
    // One that dies in the middle of its write, again and again.
    for _ in 0..50 {
        use std::io::Write as _;
        let mut file = fs::File::options()
            .append(true)
            .open(scratch.file())
            .unwrap();
        file.lock().unwrap();
        file.write_all(&encode(&begin(5))[..20]).unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let (_, ledger, _) = open(&scratch);
    let ids: Vec<u64> = ledger.actions().map(|action| action.id).collect();
    let expected: Vec<u64> = (1000..1150).chain(2000..2150).collect();
    assert_eq!(ids, expected);
}
