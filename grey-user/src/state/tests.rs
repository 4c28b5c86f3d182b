//! State files as crashes, disks, people and other machines leave them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

type State = BTreeMap<String, f64>;

fn origin() -> Origin {
    Origin {
        host: "n1".into(),
        boot_id: Some("boot-1".into()),
    }
}

fn state() -> State {
    (0..50)
        .map(|n| (format!("/c{n}"), f64::from(n) / 3.0))
        .collect()
}

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "grey-state-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load(path: &Path) -> Loaded<State> {
    StateFile::open(path, origin()).unwrap().load().unwrap()
}

#[test]
fn what_was_saved_is_loaded() {
    let folder = Folder::new();
    assert!(matches!(load(&folder.file()), Loaded::Absent));
    let mut file = StateFile::open(&folder.file(), origin()).unwrap();
    file.save_soon(state()).unwrap();
    drop(file);
    match load(&folder.file()) {
        Loaded::Good(loaded) => assert_eq!(loaded, state()),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        folder.names(),
        ["state", "state.lock"],
        "nothing else is left"
    );
}

#[test]
fn what_cannot_be_used_is_said_and_kept_aside() {
    let good = format::encode(&state(), &origin()).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let elsewhere = Origin {
        host: "n2".into(),
        ..origin()
    };
    let last = good.len() - 1;
    for (bytes, expected) in [
        (Vec::new(), "not a state file of grey-ebpf"),
        (b"hello\n".to_vec(), "not a state file of grey-ebpf"),
        (vec![0; 10_000], "not a state file of grey-ebpf"),
        (good[..20].to_vec(), "not a state file of grey-ebpf"),
        (good[..last].to_vec(), "cut off: "),
        (
            with(&|bytes| bytes[last] ^= 1),
            "damaged: its checksum is wrong",
        ),
        (
            with(&|bytes| bytes.push(0)),
            "damaged: something was added to it",
        ),
        (
            with(&|bytes| bytes[16] = b'9'),
            "format 9, and this program reads format 1",
        ),
        (with(&|bytes| bytes[18] = b'X'), "damaged: its first line"),
        (
            format::encode(&state(), &elsewhere).unwrap(),
            "of the machine 'n2'",
        ),
        (
            format::encode(&"no state", &origin()).unwrap(),
            "damaged: invalid type",
        ),
    ] {
        let folder = Folder::new();
        fs::write(folder.file(), &bytes).unwrap();
        match load(&folder.file()) {
            Loaded::Refused(refusal, Some(bad)) => {
                let text = refusal.to_string();
                assert!(text.starts_with(expected), "{text} is not {expected}");
                assert_eq!(fs::read(&bad).unwrap(), bytes, "{text}");
                assert_eq!(bad, folder.0.join("state.bad"));
                assert!(!folder.file().exists(), "{text}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn the_state_of_an_earlier_boot_is_old_not_bad() {
    let folder = Folder::new();
    let earlier = Origin {
        boot_id: Some("boot-0".into()),
        ..origin()
    };
    fs::write(folder.file(), format::encode(&state(), &earlier).unwrap()).unwrap();
    assert!(matches!(
        load(&folder.file()),
        Loaded::Refused(Refusal::OtherBoot, None)
    ));
    assert_eq!(folder.names(), ["state", "state.lock"]);
}

#[test]
fn only_the_first_one_writes_and_moves_files() {
    let folder = Folder::new();
    let mut first = StateFile::open(&folder.file(), origin()).unwrap();
    let mut second = StateFile::open(&folder.file(), origin()).unwrap();
    assert!(first.is_writer() && !second.is_writer());
    second.save(&state()).unwrap();
    second.save_soon(state()).unwrap();
    assert_eq!(folder.names(), ["state.lock"]);
    fs::write(folder.file(), "bad").unwrap();
    assert!(matches!(
        second.load::<State>().unwrap(),
        Loaded::Refused(_, None)
    ));
    first.save(&state()).unwrap();
    assert!(matches!(second.load::<State>().unwrap(), Loaded::Good(_)));
    drop(first);
    assert!(
        StateFile::open(&folder.file(), origin())
            .unwrap()
            .is_writer()
    );
}

#[test]
fn a_write_that_was_cut_off_leaves_the_old_state() {
    let folder = Folder::new();
    let mut file = StateFile::open(&folder.file(), origin()).unwrap();
    file.save(&state()).unwrap();
    fs::write(folder.0.join("state.new"), "half a").unwrap();
    assert!(matches!(file.load::<State>().unwrap(), Loaded::Good(_)));
    file.save(&State::new()).unwrap();
    match file.load::<State>().unwrap() {
        Loaded::Good(loaded) => assert_eq!(loaded, State::new()),
        other => panic!("{other:?}"),
    }
    assert_eq!(folder.names(), ["state", "state.lock"]);
}

#[test]
fn a_failed_write_is_told_and_changes_nothing() {
    let folder = Folder::new();
    let mut file = StateFile::open(&folder.file(), origin()).unwrap();
    file.save(&state()).unwrap();
    // A folder in the place of the new file: it cannot be removed as a file, whoever we are.
    fs::create_dir(folder.0.join("state.new")).unwrap();
    assert!(file.save(&State::new()).is_err());
    file.save_soon(State::new()).unwrap();
    while file
        .writing
        .as_ref()
        .is_some_and(|thread| !thread.is_finished())
    {
        std::thread::yield_now();
    }
    assert!(
        file.save_soon(State::new()).is_err(),
        "told by the next one"
    );
    match file.load::<State>().unwrap() {
        Loaded::Good(loaded) => assert_eq!(loaded, state()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_is_followed_and_anything_but_a_file_refused() {
    let folder = Folder::new();
    fs::write(folder.0.join("real"), "").unwrap();
    std::os::unix::fs::symlink("real", folder.file()).unwrap();
    StateFile::open(&folder.file(), origin())
        .unwrap()
        .save(&state())
        .unwrap();
    assert!(fs::symlink_metadata(folder.file()).unwrap().is_symlink());
    assert!(matches!(load(&folder.0.join("real")), Loaded::Good(_)));
    for bad in [
        Path::new("/dev/null"),
        &folder.0,
        Path::new("/no/such/folder/state"),
    ] {
        assert!(StateFile::open(bad, origin()).is_err(), "{}", bad.display());
    }
}

proptest! {
    #[test]
    fn no_change_of_any_bytes_is_believed_or_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let good = format::encode(&state(), &origin()).unwrap();
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        match format::decode::<State>(&bytes, &origin()) {
            Ok(loaded) => prop_assert!(bytes == good || loaded == state(), "a change was believed"),
            Err(_) => prop_assert!(bytes != good),
        }
    }

    #[test]
    fn whatever_the_bytes_it_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), sum in any::<u32>()) {
        let _ = format::decode::<State>(&bytes, &origin());
        let mut lying = format!("grey-ebpf-state 1 crc32={sum:08x} bytes={}\n", bytes.len()).into_bytes();
        lying.extend(&bytes);
        prop_assert!(format::decode::<State>(&lying, &origin()).is_err());
    }
}
