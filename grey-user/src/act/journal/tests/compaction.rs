//! A long journal made short, and what a crash leaves of that.

use super::*;

/// More than a mebibyte of actions that are over, with some that are open in between.
fn long() -> Vec<Record> {
    let mut records = Vec::new();
    for id in 1..=3000 {
        records.extend([begin(id), intent(id, 0)]);
        if id % 1000 == 0 {
            records.push(Record::Kept { id });
        } else {
            records.extend([closed(id, 0, Close::Restored), Record::Ended { id }]);
        }
    }
    records.push(begin(3001));
    records.push(intent(3001, 0));
    records
}

/// All that decides what may be done and what is to be undone.
fn essence(ledger: &Ledger) -> impl PartialEq + std::fmt::Debug + use<> {
    let open: Vec<_> = ledger
        .actions()
        .filter(|action| action.is_open())
        .cloned()
        .collect();
    let looks: Vec<_> = ledger
        .lookbacks()
        .map(|(kind, target, look)| (kind.to_owned(), target.to_owned(), look.clone()))
        .collect();
    (open, looks, ledger.next_id())
}

/// What counts for a journal here: few actions have a look-back of their own, so that it stays short.
fn same_target(records: Vec<Record>) -> Vec<Record> {
    let mut records = records;
    for record in &mut records {
        if let Record::Begin { target, .. } = record {
            "/pod".clone_into(target);
        }
    }
    records
}

fn compacted() -> (Vec<u8>, Vec<u8>) {
    let long = bytes(&same_target(long()));
    assert!(long.len() > 1 << 20, "{} is no long journal", long.len());
    let scratch = Scratch::with(&long);
    drop(open(&scratch));
    let short = fs::read(scratch.file()).unwrap();
    assert!(short.len() < long.len() / 10, "{} bytes", short.len());
    assert!(!scratch.dir().join("journal.new").exists());
    (long, short)
}

#[test]
fn a_long_journal_becomes_short_and_says_the_same() {
    let (long, short) = compacted();
    let of = |bytes: &[u8]| Ledger::of(grey_core::act::decode_all(bytes).0);
    assert_eq!(essence(&of(&long)), essence(&of(&short)));
    assert_eq!(of(&short).next_id(), 3002);
    assert_eq!(
        of(&short)
            .actions()
            .filter(|action| action.is_open())
            .count(),
        4
    );
}

#[test]
fn a_short_journal_and_one_that_cannot_become_shorter_are_left_alone() {
    let scratch = Scratch::with(&bytes(&story()));
    drop(open(&scratch));
    assert_eq!(fs::read(scratch.file()).unwrap(), bytes(&story()));

    // All open: nothing can be dropped.
    let open_ones: Vec<Record> = (1..4000)
        .flat_map(|id| [begin(id), intent(id, 0)])
        .collect();
    let long = bytes(&open_ones);
    assert!(long.len() > 1 << 20);
    let scratch = Scratch::with(&long);
    drop(open(&scratch));
    assert_eq!(fs::read(scratch.file()).unwrap(), long);
}

#[test]
fn a_crash_at_any_point_leaves_the_old_or_the_new_journal() {
    let (long, short) = compacted();
    let expected = essence(&Ledger::of(grey_core::act::decode_all(&long).0));
    // Not yet renamed: whatever is written of the new one, the old one counts.
    let points = [0, 1, short.len() / 2, short.len() - 1, short.len()];
    for at in points {
        let scratch = Scratch::with(&long);
        fs::write(scratch.dir().join("journal.new"), &short[..at]).unwrap();
        let (mut journal, ledger, damage) = open(&scratch);
        assert_eq!(essence(&ledger), expected, "{at} bytes of the new one");
        assert_eq!(damage, Damage::default());
        journal.append(&begin(5000)).unwrap();
        drop(journal);
        let (_, ledger, _) = open(&scratch);
        assert!(ledger.get(5000).is_some() && ledger.get(3001).is_some());
    }
    // Renamed, and the folder perhaps not synced: the new one counts.
    let scratch = Scratch::with(&short);
    assert_eq!(essence(&open(&scratch).1), expected);
}

#[test]
fn what_is_in_the_way_of_a_compaction_does_not_stop_an_opening() {
    let (long, _) = compacted();
    let scratch = Scratch::with(&long);
    // A folder of the new file's name cannot be removed as a file.
    fs::create_dir(scratch.dir().join("journal.new")).unwrap();
    let (mut journal, ledger, _) = open(&scratch);
    assert_eq!(ledger.next_id(), 3002);
    assert!(journal.compact(&ledger).is_err());
    journal.append(&begin(5000)).unwrap();
    assert_eq!(
        fs::read(scratch.file()).unwrap().len(),
        long.len() + bytes(&[begin(5000)]).len()
    );
}

#[test]
fn who_has_the_old_file_open_goes_over_to_the_new_one() {
    let (long, short) = compacted();
    let scratch = Scratch::with(&short);
    let (mut controller, ..) = open(&scratch);
    let mut undoer = Journal::attach(&scratch.dir()).unwrap().unwrap().0;
    // It grows long under both, and is compacted by the one that may.
    fs::write(scratch.file(), &long).unwrap();
    let ledger = controller.news().unwrap().unwrap();
    assert_eq!(controller.compact(&ledger), Ok(true));
    undoer.append(&closed(3001, 0, Close::Restored)).unwrap();
    let learnt = controller.news().unwrap().unwrap();
    assert_eq!(
        learnt.actions().filter(|action| action.is_open()).count(),
        3
    );
    assert_eq!(undoer.news().unwrap().unwrap(), learnt);
    assert_eq!(undoer.compact(&learnt), Ok(false), "it has no right to");
}

#[test]
fn nothing_is_dropped_that_others_wrote_meanwhile() {
    let (long, _) = compacted();
    let scratch = Scratch::with(b"");
    let (mut controller, ..) = open(&scratch);
    let mut undoer = Journal::attach(&scratch.dir()).unwrap().unwrap().0;
    fs::write(scratch.file(), &long).unwrap();
    let ledger = controller.news().unwrap().unwrap();
    undoer.append(&closed(3001, 0, Close::Restored)).unwrap();
    assert_eq!(controller.compact(&ledger), Ok(false));
    let learnt = controller.news().unwrap().unwrap();
    assert_eq!(controller.compact(&learnt), Ok(true));
    assert_eq!(open_steps(&scratch), 3);
}

fn open_steps(scratch: &Scratch) -> usize {
    let ledger = Journal::look(&scratch.dir()).unwrap().unwrap().0;
    ledger.actions().filter(|action| action.is_open()).count()
}

#[test]
fn rotten_lines_go_and_those_of_a_newer_version_stay() {
    let (mut long, _) = compacted();
    long.extend(newer());
    long.extend(b"g1 00000000 {\"r\":\"kept\",\"id\":1}\n");
    let scratch = Scratch::with(&long);
    assert_eq!(open(&scratch).2.lines, 2);
    let text = fs::read_to_string(scratch.file()).unwrap();
    assert!(text.len() < long.len() / 10);
    assert!(text.contains("quota") && !text.contains("g1 00000000"));
    assert_eq!(open(&scratch).2.lines, 1);
}

#[test]
fn appends_beside_compactions_are_not_lost() {
    let (long, _) = compacted();
    let scratch = Scratch::with(&long);
    let dir = scratch.dir();
    let (mut controller, ..) = open(&scratch);
    let appender = std::thread::spawn(move || {
        let mut journal = Journal::attach(&dir).unwrap().unwrap().0;
        for id in 10_000..10_200 {
            journal.append(&begin(id)).unwrap();
            journal.append(&intent(id, 0)).unwrap();
        }
    });
    let mut rounds = 0;
    while !appender.is_finished() {
        // Long again, as if much had happened.
        for id in 20_000..20_200 {
            controller.append(&begin(id)).unwrap();
        }
        if let Ok(Some(ledger)) = controller.news() {
            controller.shorten(&ledger, u64::MAX).unwrap();
        }
        rounds += 1;
    }
    appender.join().unwrap();
    let (ledger, ..) = Journal::look(&scratch.dir()).unwrap().unwrap();
    let lost = (10_000..10_200).filter(|id| ledger.get(*id).is_none_or(|action| !action.is_open()));
    assert_eq!(lost.count(), 0, "after {rounds} compactions");
}
