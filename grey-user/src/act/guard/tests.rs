//! The guard's loop in a thread, over ordinary files. It runs as a process of its own in the end-to-end tests.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grey_core::act::{Change, Close, Fault, Knob, KnobFile, Record, Text, Value, decode_all};

use super::Guard;
use super::held::{Held, SLOTS};
use super::note::Journal;
use super::process::rehearse;
use super::serve::Serve;
use super::wire::Name;
use crate::act::fork::tests::Hanging;

/// Counts what a sealed thread, and the children it forks, allocate.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static SEALED: Cell<bool> = const { Cell::new(false) };
}

/// In memory that forked children share.
fn allocations() -> &'static AtomicU64 {
    static PAGE: OnceLock<&'static AtomicU64> = OnceLock::new();
    PAGE.get_or_init(|| {
        let (read_write, shared) = (
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::SHARED,
        );
        // SAFETY: a new mapping that is never taken away, large enough and zeroed.
        unsafe {
            let page =
                rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, read_write, shared).unwrap();
            &*page.cast::<AtomicU64>()
        }
    })
}

fn count() {
    if SEALED.get() {
        allocations().fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: everything is the system allocator's; counting does not allocate (the page is there before a thread is sealed).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A folder with files that stand for knobs, and a guard over them.
struct Scene {
    dir: PathBuf,
    guard: Option<Guard>,
    /// Ends with the number of allocations while it served.
    thread: Option<JoinHandle<u64>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.guard.take());
        let allocated = self.thread.take().map(|thread| thread.join().unwrap());
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert_eq!(allocated, Some(0), "the guard allocated");
        }
    }
}

fn scene(hang: Duration) -> Scene {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("grey-guard-{}-{number}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("journal"), "").unwrap();
    let (ours, its) = super::packets().unwrap();
    let mut serve = Box::new(Serve {
        socket: its,
        controller: None,
        journal: Some(Journal {
            dir: fs::File::open(&dir).unwrap().into(),
            name: Name::new(b"journal").unwrap(),
        }),
        hang: hang.as_millis() as u64,
        held: Held::new(),
        revoked: false,
    });
    // One counter for all tests: they take turns in being counted.
    let thread = std::thread::spawn(move || {
        let allocations = allocations();
        rehearse(&mut serve.held);
        SEALED.set(true);
        let before = allocations.load(Ordering::SeqCst);
        serve.run();
        SEALED.set(false);
        allocations.load(Ordering::SeqCst) - before
    });
    Scene {
        dir,
        guard: Some(Guard::over(ours, None)),
        thread: Some(thread),
    }
}

const CALM: Duration = Duration::from_secs(60);

impl Scene {
    fn guard(&mut self) -> &mut Guard {
        self.guard.as_mut().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn set(&self, name: &str, value: &str) {
        fs::write(self.file(name), value).unwrap();
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// Arms a change and makes it.
    fn change(&mut self, id: u64, step: u32, name: &str, new: &str) {
        self.change_leaving(id, step, name, new, None).unwrap();
        self.set(name, new);
    }

    fn change_leaving(
        &mut self,
        id: u64,
        step: u32,
        name: &str,
        new: &str,
        leaves: Option<&str>,
    ) -> Result<(), Fault> {
        let knob = Knob::cgroup("/x", 1, KnobFile::MemoryHigh);
        let value = |text: &str| Value::new(text).unwrap();
        let leaves = leaves.map(value);
        let change = Change {
            knob: &knob,
            old: &value(&self.get(name)),
            new: &value(new),
            leaves: leaves.as_ref(),
        };
        let file = open(&self.file(name));
        self.guard().arm(id, step, &change, file)
    }

    /// The controller is gone without a word.
    fn die(&mut self) {
        let guard = self.guard.as_mut().unwrap();
        guard.socket = None;
        self.guard = None;
        if let Some(thread) = self.thread.take() {
            assert_eq!(thread.join().unwrap(), 0, "the guard allocated");
        }
        self.thread = Some(std::thread::spawn(|| 0));
    }

    fn closed(&self) -> Vec<(u64, u32, Close)> {
        let (records, damage) = decode_all(&fs::read(self.file("journal")).unwrap());
        assert_eq!((damage.lines, damage.torn), (0, false));
        let closed = records.into_iter().map(|record| match record {
            Record::Closed { id, step, how } => (id, step, how),
            other => panic!("{other:?}"),
        });
        closed.collect()
    }

    fn wait(&mut self, what: &str, mut wanted: impl FnMut(&mut Scene) -> bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while !wanted(self) {
            assert!(Instant::now() < end, "{what}: not in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn open(path: &Path) -> OwnedFd {
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    file.unwrap().into()
}

#[test]
fn all_is_put_back_newest_first_when_the_controller_dies() {
    let mut scene = scene(CALM);
    for name in ["a", "b"] {
        scene.set(name, "0");
    }
    scene.change(1, 0, "a", "1");
    scene.change(1, 1, "b", "5");
    scene.change(1, 2, "a", "2");
    scene.change(2, 0, "a", "3");
    scene.die();
    assert_eq!((scene.get("a"), scene.get("b")), ("0".into(), "0".into()));
    let restored = |id, step| (id, step, Close::Restored);
    assert_eq!(
        scene.closed(),
        [
            restored(2, 0),
            restored(1, 2),
            restored(1, 1),
            restored(1, 0)
        ]
    );
}

#[test]
fn what_somebody_else_wrote_stays_and_what_was_never_written_is_closed() {
    let mut scene = scene(CALM);
    for name in ["a", "b"] {
        scene.set(name, "0");
    }
    scene.change(1, 0, "a", "1");
    scene.change_leaving(1, 1, "b", "1", None).unwrap();
    scene.set("a", "7");
    scene.die();
    assert_eq!((scene.get("a"), scene.get("b")), ("7".into(), "0".into()));
    assert_eq!(
        scene.closed(),
        [(1, 1, Close::Back), (1, 0, Close::Foreign)]
    );
}

#[test]
fn what_the_kernel_leaves_behind_is_put_back_too() {
    let mut scene = scene(CALM);
    for name in ["pages", "mode"] {
        scene.set(name, "0");
    }
    scene.change_leaving(1, 0, "pages", "0", Some("4")).unwrap();
    scene.change(1, 1, "mode", "1");
    // As if putting the mode back had left this.
    scene.set("pages", "4");
    scene.die();
    assert_eq!(scene.get("pages"), "0");
}

#[test]
fn what_is_released_stays() {
    let mut scene = scene(CALM);
    for name in ["a", "b"] {
        scene.set(name, "0");
    }
    scene.change(1, 0, "a", "1");
    scene.change(2, 0, "b", "1");
    scene.guard().release(1, None).unwrap();
    scene.die();
    assert_eq!((scene.get("a"), scene.get("b")), ("1".into(), "0".into()));
}

#[test]
fn a_hung_controller_is_revoked_and_its_late_writes_are_put_back() {
    let mut scene = scene(Duration::from_millis(250));
    scene.set("a", "0");
    scene.change(1, 0, "a", "1");
    scene.guard().beat().unwrap();
    scene.wait("the first undoing", |scene| scene.get("a") == "0");
    scene.wait("the journal", |scene| {
        scene.closed() == [(1, 0, Close::Restored)]
    });
    assert_eq!(scene.guard().beat(), Err(Fault::Revoked));
    // It was stopped right before its write.
    scene.set("a", "1");
    scene.wait("the second undoing", |scene| scene.get("a") == "0");
    assert_eq!(
        scene.change_leaving(1, 1, "a", "1", None),
        Err(Fault::Revoked)
    );
    assert_eq!(scene.guard().release(1, None), Err(Fault::Revoked));
    scene.set("a", "1");
    scene.die();
    assert_eq!(scene.get("a"), "1", "it is no longer the guard's");
    assert_eq!(scene.closed(), [(1, 0, Close::Restored)]);
}

#[test]
fn a_controller_that_beats_is_not_hung() {
    let mut scene = scene(Duration::from_millis(500));
    scene.set("a", "0");
    scene.change(1, 0, "a", "1");
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        scene.guard().beat().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(scene.get("a"), "1");
    scene.guard().release(1, None).unwrap();
}

#[test]
fn a_lease_ends_by_itself_and_only_its_own_changes_go() {
    let mut scene = scene(CALM);
    for name in ["a", "b"] {
        scene.set(name, "0");
    }
    scene.change(1, 0, "a", "1");
    scene.change(2, 0, "b", "1");
    let lease = Duration::from_millis(100);
    scene.guard().lease(1, Some(lease)).unwrap();
    let start = Instant::now();
    scene.wait("the end of the lease", |scene| scene.get("a") == "0");
    assert!(start.elapsed() >= lease, "{:?}", start.elapsed());
    assert_eq!(scene.get("b"), "1");
    assert_eq!(scene.guard().beat(), Ok(()), "it has not taken over");
    assert!(scene.guard().release(1, None).is_err(), "it cannot be kept");
    scene.guard().release(2, None).unwrap();
}

#[test]
fn a_helper_that_outlives_its_controller_is_awaited_and_its_write_undone() {
    let mut scene = scene(CALM);
    scene.set("a", "0");
    scene.change(1, 0, "a", "1");
    let helper = scene.guard().socket.as_ref().unwrap().try_clone().unwrap();
    scene.guard().send(&super::Ask::Bye, &[]).unwrap();
    scene.guard().socket = None;
    scene.wait("the first undoing", |scene| scene.get("a") == "0");
    // Beyond the time of frequent looks.
    std::thread::sleep(Duration::from_millis(1300));
    scene.set("a", "1");
    drop(helper);
    scene.die();
    assert_eq!(scene.get("a"), "0");
}

#[test]
fn a_file_whose_writer_hangs_is_looked_after_until_it_does_not() {
    let mut scene = scene(CALM);
    for name in ["a", "b"] {
        scene.set(name, "0");
    }
    for name in ["a", "b"] {
        scene
            .change_leaving(1, u32::from(name == "b"), name, "1", None)
            .unwrap();
    }
    let ask = super::Ask::Release {
        id: 1,
        step: Some(0),
        linger: true,
    };
    let within = Duration::from_secs(5);
    scene.guard().request(&ask, &[], within).unwrap();
    scene.guard().release(1, Some(1)).unwrap();
    for name in ["a", "b"] {
        scene.set(name, "1");
    }
    scene.wait("the undoing", |scene| scene.get("a") == "0");
    scene
        .guard()
        .request(&super::Ask::Settle, &[], within)
        .unwrap();
    scene.set("a", "1");
    scene.die();
    assert_eq!((scene.get("a"), scene.get("b")), ("1".into(), "1".into()));
    assert_eq!(scene.closed(), []);
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let mut scene = scene(CALM);
    scene.set("a", "0");
    for step in 0..SLOTS as u32 {
        scene.change_leaving(1, step, "a", "1", None).unwrap();
    }
    let refused = scene.change_leaving(2, 0, "a", "1", None);
    assert!(matches!(refused, Err(Fault::Other(_))), "{refused:?}");
    scene.set("a", "1");
    scene.die();
    assert_eq!(scene.get("a"), "0");
}

#[test]
fn a_guard_that_does_not_answer_or_is_gone_is_lost() {
    let (ours, its) = super::packets().unwrap();
    let mut guard = Guard::over(ours, None);
    guard.sent = Instant::now() - super::BEAT;
    let start = Instant::now();
    guard.beat().unwrap();
    let lost = loop {
        if let Err(fault) = guard.beat() {
            break fault;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(lost, Fault::GuardLost);
    assert!(start.elapsed() >= super::ANSWER, "{:?}", start.elapsed());

    let (ours, other) = super::packets().unwrap();
    let mut guard = Guard::over(ours, None);
    guard.beat().unwrap();
    drop((its, other));
    assert_eq!(guard.beat(), Err(Fault::GuardLost));
}

#[test]
fn a_write_that_hangs_does_not_hold_up_the_others() {
    let Some(mut hanging) = Hanging::new("1") else {
        eprintln!("skipped: userfaultfd(2) is not allowed");
        return;
    };
    let mut scene = scene(CALM);
    for name in ["a", "b"] {
        scene.set(name, "0");
    }
    scene.change(1, 0, "a", "1");
    let text = |text: &str| Text::new(text.as_bytes()).unwrap();
    let arm = super::Arm {
        id: 1,
        step: 1,
        file: KnobFile::MemoryHigh,
        old: text("0"),
        new: text("1"),
        leaves: None,
    };
    let file = hanging.file.try_clone().unwrap();
    let ask = super::Ask::Arm(arm);
    let armed = scene.guard().request(&ask, &[file.as_fd()], CALM);
    assert_eq!(armed, Ok(super::Reply::Done));
    scene.change(1, 2, "b", "1");
    let start = Instant::now();
    scene.guard().socket = None;
    scene.wait("the others", |scene| {
        scene.get("a") == "0" && scene.get("b") == "0"
    });
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    hanging.let_go();
    scene.die();
    let mut held = [0];
    rustix::io::pread(&hanging.file, &mut held, 0).unwrap();
    assert_eq!(held, *b"0");
    let mut closed = scene.closed();
    closed.sort_by_key(|(_, step, _)| *step);
    assert_eq!(closed, [0, 1, 2].map(|step| (1, step, Close::Restored)));
}

#[test]
fn what_cannot_be_written_stays_open() {
    let mut scene = scene(CALM);
    for name in ["a", "b"] {
        scene.set(name, "0");
    }
    scene.change(1, 0, "a", "1");
    let knob = Knob::cgroup("/x", 1, KnobFile::MemoryHigh);
    let value = |text: &str| Value::new(text).unwrap();
    let change = Change {
        knob: &knob,
        old: &value("0"),
        new: &value("1"),
        leaves: None,
    };
    let file = fs::File::open(scene.file("b")).unwrap();
    scene.guard().arm(1, 1, &change, file.into()).unwrap();
    scene.set("b", "1");
    scene.die();
    assert_eq!((scene.get("a"), scene.get("b")), ("0".into(), "1".into()));
    assert_eq!(scene.closed(), [(1, 0, Close::Restored)]);
}
