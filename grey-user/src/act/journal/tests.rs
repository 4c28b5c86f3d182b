use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use grey_core::act::{Close, Damage, Fault, Harm, Knob, KnobFile, Ledger, Record, Value, encode};
use proptest::prelude::*;

use super::{FILE, Journal, JournalError};

mod compaction;
mod sharing;

/// A folder of one test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("grey-journal-{}-{next}", std::process::id());
        // In memory where possible: what is synced thousands of times there costs no disk anything.
        let path = Path::new("/dev/shm").join(&name);
        let path = match fs::create_dir(&path) {
            Ok(()) => path,
            Err(_) => {
                let path = std::env::temp_dir().join(name);
                fs::create_dir(&path).unwrap();
                path
            }
        };
        Scratch(path)
    }

    fn dir(&self) -> PathBuf {
        self.0.join("state")
    }

    fn file(&self) -> PathBuf {
        self.dir().join(FILE)
    }

    /// A folder as `open` makes it, with this journal.
    fn with(bytes: &[u8]) -> Scratch {
        let scratch = Scratch::new();
        drop(open(&scratch));
        fs::write(scratch.file(), bytes).unwrap();
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(scratch: &Scratch) -> (Journal, Ledger, Damage) {
    Journal::open(&scratch.dir()).unwrap()
}

fn why(dir: &Path) -> String {
    Journal::open(dir).unwrap_err().to_string()
}

fn high(id: u64) -> Knob {
    Knob::cgroup(&format!("/pod {id}/ü"), 40 + id, KnobFile::MemoryHigh)
}

fn begin(id: u64) -> Record {
    Record::Begin {
        id,
        at: 1_795_237_200_000 + id,
        boot: "8d2e4f40-9d4b-4bb1-a2a7-1e5b2f0c3c11".to_owned(),
        pid: 900,
        kind: "limit".to_owned(),
        target: format!("/pod {id}/ü"),
        reason: "by hand\nin two lines".to_owned(),
    }
}

fn intent(id: u64, step: u32) -> Record {
    Record::Intent {
        id,
        step,
        knob: high(id),
        old: Value::limit(None, 4096),
        new: Value::number(4096 * (id + 1)),
        leaves: None,
    }
}

fn closed(id: u64, step: u32, how: Close) -> Record {
    Record::Closed { id, step, how }
}

/// Several actions: kept, undone, one over another, one broken off.
fn story() -> Vec<Record> {
    vec![
        begin(1),
        intent(1, 0),
        intent(1, 1),
        Record::Kept { id: 1 },
        begin(2),
        intent(2, 0),
        closed(2, 0, Close::Restored),
        Record::Ended { id: 2 },
        Record::Harm(Harm {
            kind: "limit".to_owned(),
            target: "/pod 2/ü".to_owned(),
            at: 5,
            count: 1,
            why: "oom_kill: 1".to_owned(),
        }),
        begin(3),
        intent(3, 0),
    ]
}

fn bytes(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(encode).collect()
}

#[test]
fn a_new_journal_is_open_to_its_owner_alone() {
    let scratch = Scratch::new();
    let (journal, ledger, damage) = open(&scratch);
    assert_eq!((ledger, damage), (Ledger::of([]), Damage::default()));
    assert_eq!(journal.path(), scratch.file());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&scratch.dir()), 0o700);
    assert_eq!(mode(&scratch.file()), 0o600);
    assert_eq!(mode(&scratch.dir().join("controller.lock")), 0o600);
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let scratch = Scratch::new();
    for record in story() {
        open(&scratch).0.append(&record).unwrap();
    }
    let (_, ledger, damage) = open(&scratch);
    assert_eq!((ledger, damage), (Ledger::of(story()), Damage::default()));
    assert_eq!(fs::read(scratch.file()).unwrap(), bytes(&story()));
}

#[test]
fn cut_at_any_byte_all_whole_records_count_and_the_next_append_is_whole() {
    let whole = bytes(&story());
    let scratch = Scratch::with(b"");
    for at in 0..=whole.len() {
        fs::write(scratch.file(), &whole[..at]).unwrap();
        let mut lines = whole[..at].iter().filter(|byte| **byte == b'\n').count();
        // One that lacks nothing but its line break counts.
        lines += usize::from(at > 0 && whole.get(at) == Some(&b'\n'));
        let (mut journal, ledger, damage) = open(&scratch);
        assert_eq!(ledger, Ledger::of(story().into_iter().take(lines)), "{at}");
        assert_eq!(damage.torn, at > 0 && whole[at - 1] != b'\n', "{at}");
        journal.append(&begin(77)).unwrap();
        drop(journal);
        let mut expected = Ledger::of(story().into_iter().take(lines));
        expected.apply(&begin(77));
        assert_eq!(open(&scratch).1, expected, "cut at {at}");
    }
}

#[test]
fn a_flipped_byte_costs_at_most_the_lines_it_touches() {
    let whole = bytes(&story());
    let scratch = Scratch::with(b"");
    for at in 0..whole.len() {
        for flip in [0x01, 0x80] {
            let mut bad = whole.clone();
            bad[at] ^= flip;
            fs::write(scratch.file(), &bad).unwrap();
            let line = whole[..at].iter().filter(|byte| **byte == b'\n').count();
            let (_, ledger, damage) = open(&scratch);
            assert!(damage.lines >= 1, "byte {at} ^ {flip:#x} is not noticed");
            // A line break that became something else joins two lines, and both are lost.
            let lost = if whole[at] == b'\n' { 2 } else { 1 };
            let left = story()
                .into_iter()
                .enumerate()
                .filter(|(number, _)| !(line..line + lost).contains(number));
            assert_eq!(
                ledger,
                Ledger::of(left.map(|(_, record)| record)),
                "byte {at} ^ {flip:#x}"
            );
        }
    }
}

#[test]
fn a_file_of_anything_is_an_empty_journal_that_can_be_appended_to() {
    for garbage in [
        &b"\0\0\0\0"[..],
        b"\n\n\n",
        &[0xff; 9000],
        b"g1 ",
        b"g2 00000000 {}\n",
    ] {
        let scratch = Scratch::with(garbage);
        let (mut journal, ledger, _) = open(&scratch);
        assert_eq!(ledger, Ledger::of([]));
        journal.append(&begin(1)).unwrap();
        drop(journal);
        assert_eq!(open(&scratch).1, Ledger::of([begin(1)]), "{garbage:?}");
    }
}

#[test]
fn what_a_newer_version_wrote_is_skipped_and_counted() {
    let mut lines = bytes(&[begin(1)]);
    lines.extend(newer());
    lines.extend(bytes(&[intent(1, 0)]));
    let (_, ledger, damage) = open(&Scratch::with(&lines));
    assert_eq!(ledger, Ledger::of([begin(1), intent(1, 0)]));
    assert_eq!((damage.lines, damage.torn), (1, false));
}

/// A record that this version does not know, with its checksum.
fn newer() -> Vec<u8> {
    b"g1 9ba651aa {\"r\":\"quota\",\"id\":1}\n".to_vec()
}

#[test]
fn links_pipes_and_folders_are_not_taken_for_a_journal() {
    let scratch = Scratch::new();
    let elsewhere = scratch.0.join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    drop(open(&scratch));
    for name in [FILE, "controller.lock"] {
        let path = scratch.dir().join(name);
        fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(why(&scratch.dir()).contains("is a link"), "{name}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(why(&scratch.dir()).contains("no regular file"), "{name}");
        fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(why(&scratch.dir()).contains("no regular file"), "{name}");
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");

    let link = scratch.0.join("link");
    symlink(scratch.dir(), &link).unwrap();
    for path in [link.clone(), link.join("")] {
        assert!(why(&path).contains("is a link"), "{}", path.display());
    }
    assert!(why(&elsewhere).contains("is no folder"));
    assert!(why(&elsewhere.join("below")).contains("elsewhere/below"));
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    let scratch = Scratch::new();
    drop(open(&scratch));
    for mode in [0o777, 0o1777, 0o720, 0o702] {
        fs::set_permissions(scratch.dir(), fs::Permissions::from_mode(mode)).unwrap();
        let why = why(&scratch.dir());
        assert!(
            why.contains(&format!("{mode:o}")) && why.contains("chmod"),
            "{why}"
        );
    }
    fs::set_permissions(scratch.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&scratch));
    // Only root can give a folder away.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(scratch.dir(), Some(1234), None).unwrap();
        assert!(why(&scratch.dir()).contains("user 1234"));
    }
}

#[test]
fn a_journal_no_journal_can_be_as_large_as_is_not_read() {
    let scratch = Scratch::with(b"");
    let file = fs::File::options()
        .write(true)
        .open(scratch.file())
        .unwrap();
    file.set_len(super::MAX_BYTES + 1).unwrap();
    assert!(why(&scratch.dir()).contains("larger than 64M"));
}

#[test]
fn a_journal_that_was_taken_away_is_an_error_of_the_next_append() {
    let scratch = Scratch::new();
    let (mut journal, ..) = open(&scratch);
    journal.append(&begin(1)).unwrap();
    fs::remove_file(scratch.file()).unwrap();
    assert_eq!(journal.append(&begin(2)), Err(Fault::Gone));
    // Another file of the name is gone over to.
    fs::write(scratch.file(), bytes(&[begin(7)])).unwrap();
    journal.append(&begin(8)).unwrap();
    assert_eq!(journal.news(), Ok(Some(Ledger::of([begin(7), begin(8)]))));
}

#[test]
fn looking_and_attaching_make_nothing() {
    let scratch = Scratch::new();
    assert!(Journal::look(&scratch.dir()).unwrap().is_none());
    assert!(Journal::attach(&scratch.dir()).unwrap().is_none());
    assert!(!scratch.dir().exists());

    let scratch = Scratch::with(&bytes(&story()));
    fs::remove_file(scratch.dir().join("controller.lock")).unwrap();
    let before = fs::metadata(scratch.file()).unwrap();
    let (ledger, damage, controller) = Journal::look(&scratch.dir()).unwrap().unwrap();
    assert_eq!(
        (ledger, damage.lines, controller),
        (Ledger::of(story()), 0, None)
    );
    let after = fs::metadata(scratch.file()).unwrap();
    assert_eq!(
        (before.mtime_nsec(), before.size()),
        (after.mtime_nsec(), after.size())
    );
    assert_eq!(fs::read_dir(scratch.dir()).unwrap().count(), 1);
}

fn any_record() -> impl Strategy<Value = Record> {
    let id = 1_u64..6;
    let how = prop_oneof![
        Just(Close::Restored),
        Just(Close::Back),
        Just(Close::Foreign),
        Just(Close::Covered),
        Just(Close::Gone),
    ];
    prop_oneof![
        id.clone().prop_map(begin),
        (id.clone(), 0_u32..3).prop_map(|(id, step)| intent(id, step)),
        (id.clone(), 0_u32..3, how).prop_map(|(id, step, how)| closed(id, step, how)),
        id.clone().prop_map(|id| Record::Kept { id }),
        id.clone().prop_map(|id| Record::Ended { id }),
        id.prop_map(|id| Record::Next { id: id * 7 }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever it is closed and opened again, and whatever a crash tears off or leaves at its end.
    #[test]
    fn a_journal_comes_to_the_same_whenever_it_is_opened(
        steps in prop::collection::vec((any_record(), any::<bool>(), prop::option::of(0_usize..40)), 0..40),
    ) {
        let scratch = Scratch::new();
        let mut opened = open(&scratch);
        let mut expected = Ledger::of([]);
        for (record, reopen, tear) in steps {
            opened.0.append(&record).unwrap();
            expected.apply(&record);
            if let Some(length) = tear {
                // The beginning of a record, as a power cut may leave it.
                let torn = &encode(&begin(99))[..length];
                let mut bytes = fs::read(scratch.file()).unwrap();
                bytes.extend_from_slice(torn);
                fs::write(scratch.file(), bytes).unwrap();
            }
            if reopen {
                drop(opened);
                opened = open(&scratch);
                prop_assert_eq!(&opened.1, &expected);
            }
        }
        drop(opened);
        prop_assert_eq!(open(&scratch).1, expected);
    }
}
