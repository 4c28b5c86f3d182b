//! Records as the kernel side writes them, and bytes that it never wrote.

use proptest::prelude::*;

use super::*;

/// The bytes of a record, field by field; the inverse of the decoder's offsets.
struct Encoder(Vec<u8>);

impl Encoder {
    fn new(kind: RecordKind) -> Self {
        let size = size_of_kind(kind);
        let mut encoder = Encoder(vec![0; size]);
        encoder.put(offset_of!(Header, kind), &(kind as u32).to_ne_bytes());
        encoder.put(
            offset_of!(Header, size),
            &u32::try_from(size).unwrap().to_ne_bytes(),
        );
        encoder.put(offset_of!(Header, ktime_ns), &1_000_u64.to_ne_bytes());
        encoder.put(offset_of!(Header, cgroup), &42_u64.to_ne_bytes());
        encoder
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.put(at, &value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.put(at, &value.to_ne_bytes());
        self
    }

    fn bytes(mut self, at: usize, value: &[u8]) -> Self {
        self.put(at, value);
        self
    }
}

fn oom_bytes() -> Encoder {
    Encoder::new(RecordKind::Oom)
        .u64(offset_of!(OomRecord, limit_cgroup), 41)
        .u64(offset_of!(OomRecord, trigger_cgroup), 43)
        .u64(offset_of!(OomRecord, anon), 1 << 30)
        .u64(offset_of!(OomRecord, file), 4096)
        .u64(offset_of!(OomRecord, shmem), 0)
        .u64(offset_of!(OomRecord, pgtables), 8192)
        .u64(offset_of!(OomRecord, total_vm), 1 << 31)
        .u32(offset_of!(OomRecord, pid), 100)
        .u32(offset_of!(OomRecord, trigger_pid), 101)
        .u32(offset_of!(OomRecord, constraint), constraint::MEMCG)
        .u32(
            offset_of!(OomRecord, oom_score_adj),
            u32::from_ne_bytes((-500_i32).to_ne_bytes()),
        )
        .bytes(offset_of!(OomRecord, comm), b"java")
        .bytes(offset_of!(OomRecord, trigger_comm), b"python3")
}

fn stall_bytes() -> Encoder {
    Encoder::new(RecordKind::Stall)
        .u64(offset_of!(StallRecord, target), 41)
        .u64(offset_of!(StallRecord, ns), 12_000_000)
        .u64(offset_of!(StallRecord, pages), 512)
        .u32(offset_of!(StallRecord, pid), 7)
        .u32(offset_of!(StallRecord, kind), stall::MEMCG)
        .u32(offset_of!(StallRecord, own), 1)
        .bytes(offset_of!(StallRecord, comm), b"cc1plus")
}

fn cgroup_bytes(kind: RecordKind, path: &[u8]) -> Encoder {
    Encoder::new(kind)
        .u32(
            offset_of!(CgroupRecord, path_len),
            u32::try_from(path.len()).unwrap(),
        )
        .bytes(offset_of!(CgroupRecord, path), path)
}

fn process_bytes(kind: RecordKind) -> Encoder {
    Encoder::new(kind)
        .u32(offset_of!(ProcessRecord, pid), 9)
        .bytes(offset_of!(ProcessRecord, comm), b"0123456789abcdef")
}

fn growth_bytes(kind: RecordKind) -> Encoder {
    Encoder::new(kind)
        .u64(offset_of!(GrowthRecord, bytes), 16 << 20)
        .u64(offset_of!(GrowthRecord, since_ns), 250_000_000)
        .u64(offset_of!(GrowthRecord, rss), 64 << 20)
        .u64(offset_of!(GrowthRecord, total_vm), UNKNOWN)
        .u32(offset_of!(GrowthRecord, pid), 11)
        .bytes(offset_of!(GrowthRecord, comm), b"leaky")
}

fn every_kind() -> Vec<(RecordKind, Vec<u8>)> {
    RecordKind::ALL
        .into_iter()
        .map(|kind| {
            let encoder = match kind {
                RecordKind::Oom => oom_bytes(),
                RecordKind::Stall => stall_bytes(),
                RecordKind::CgroupMade | RecordKind::CgroupRemoved | RecordKind::CgroupRenamed => {
                    cgroup_bytes(kind, b"/a/b")
                }
                RecordKind::ProcessExec | RecordKind::ProcessExit => process_bytes(kind),
                RecordKind::ProcessGrowth | RecordKind::CgroupGrowth => growth_bytes(kind),
            };
            (kind, encoder.0)
        })
        .collect()
}

fn change_of(bytes: &[u8]) -> CgroupChange {
    match decode(bytes) {
        Ok(Record::CgroupMade(change)) => change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_decodes_to_its_own_variant() {
    for (kind, bytes) in every_kind() {
        let record = decode(&bytes).unwrap();
        assert_eq!(record.kind(), kind);
        assert_eq!(record.ktime_ns(), 1_000);
        assert_eq!(record.cgroup(), Some(42));
    }
}

#[test]
fn an_oom_record_keeps_every_figure() {
    assert_eq!(
        decode(&oom_bytes().0),
        Ok(Record::Oom(Oom {
            ktime_ns: 1_000,
            cgroup: Some(42),
            limit_cgroup: Some(41),
            trigger_cgroup: Some(43),
            pid: 100,
            comm: "java".to_owned(),
            anon: Some(1 << 30),
            file: Some(4096),
            shmem: Some(0),
            pgtables: Some(8192),
            total_vm: Some(1 << 31),
            oom_score_adj: Some(-500),
            trigger_pid: Some(101),
            trigger_comm: "python3".to_owned(),
            constraint: Some(Constraint::Memcg),
        }))
    );
}

#[test]
fn unknown_figures_of_an_oom_are_absent_not_zero() {
    let mut encoder = oom_bytes()
        .u64(offset_of!(Header, cgroup), 0)
        .u64(offset_of!(OomRecord, limit_cgroup), 0)
        .u64(offset_of!(OomRecord, trigger_cgroup), 0)
        .u32(offset_of!(OomRecord, trigger_pid), 0)
        .u32(offset_of!(OomRecord, constraint), constraint::UNKNOWN)
        .bytes(
            offset_of!(OomRecord, oom_score_adj),
            &i32::MIN.to_ne_bytes(),
        )
        .bytes(offset_of!(OomRecord, comm), &[0; COMM_LEN]);
    for at in [
        offset_of!(OomRecord, anon),
        offset_of!(OomRecord, file),
        offset_of!(OomRecord, shmem),
        offset_of!(OomRecord, pgtables),
        offset_of!(OomRecord, total_vm),
    ] {
        encoder = encoder.u64(at, UNKNOWN);
    }
    let Ok(Record::Oom(oom)) = decode(&encoder.0) else {
        panic!("not an OOM record");
    };
    assert_eq!(
        (oom.cgroup, oom.limit_cgroup, oom.trigger_cgroup),
        (None, None, None)
    );
    assert_eq!(
        [oom.anon, oom.file, oom.shmem, oom.pgtables, oom.total_vm],
        [None; 5]
    );
    assert_eq!((oom.oom_score_adj, oom.constraint), (None, None));
    assert_eq!((oom.trigger_pid, oom.comm.as_str()), (None, ""));
}

#[test]
fn constraints_are_named_as_the_kernel_numbers_them() {
    for (raw, want) in [
        (0, Some(Constraint::Global)),
        (1, Some(Constraint::Cpuset)),
        (2, Some(Constraint::Mempolicy)),
        (3, Some(Constraint::Memcg)),
        (4, None),
        (u32::MAX, None),
    ] {
        let bytes = oom_bytes().u32(offset_of!(OomRecord, constraint), raw).0;
        assert!(
            matches!(decode(&bytes), Ok(Record::Oom(oom)) if oom.constraint == want),
            "{raw}"
        );
    }
}

#[test]
fn a_stall_tells_who_waited_for_what() {
    assert_eq!(
        decode(&stall_bytes().0),
        Ok(Record::Stall(Stall {
            ktime_ns: 1_000,
            cgroup: Some(42),
            target: Some(41),
            ns: 12_000_000,
            pages: 512,
            pid: Some(7),
            comm: "cc1plus".to_owned(),
            kind: StallKind::Memcg,
            own: true,
        }))
    );
    let bytes = stall_bytes().u32(offset_of!(StallRecord, kind), 3).0;
    assert_eq!(decode(&bytes), Err(Reject::StallKind(3)));
}

#[test]
fn growth_keeps_what_is_known() {
    assert_eq!(
        decode(&growth_bytes(RecordKind::ProcessGrowth).0),
        Ok(Record::ProcessGrowth(Growth {
            ktime_ns: 1_000,
            cgroup: Some(42),
            pid: 11,
            comm: "leaky".to_owned(),
            bytes: 16 << 20,
            since_ns: 250_000_000,
            rss: Some(64 << 20),
            total_vm: None,
        }))
    );
}

#[test]
fn a_cgroup_path_is_exact_or_marked() {
    let made = RecordKind::CgroupMade;
    let change = change_of(&cgroup_bytes(made, "/a\n/é".as_bytes()).0);
    assert_eq!((change.path.as_str(), change.truncated), ("/a\n/é", false));

    let long = [b"/".as_slice(), &[b'x'; PATH_LEN - 3]].concat();
    assert!(!change_of(&cgroup_bytes(made, &long).0).truncated);
    for len in [PATH_LEN - 1, PATH_LEN] {
        let long = [b"/".as_slice(), &vec![b'x'; len - 1]].concat();
        assert!(change_of(&cgroup_bytes(made, &long).0).truncated, "{len}");
    }
    assert!(change_of(&cgroup_bytes(made, b"/\xff").0).truncated);

    let empty = change_of(&cgroup_bytes(made, b"").0);
    assert_eq!((empty.path.as_str(), empty.truncated), ("", true));
    assert_eq!(change_of(&cgroup_bytes(made, b"/a\0junk").0).path, "/a");
}

#[test]
fn a_bad_path_is_rejected() {
    let kind = RecordKind::CgroupRemoved;
    let len = u32::try_from(PATH_LEN).unwrap() + 1;
    for len in [len, u32::MAX] {
        let bytes = cgroup_bytes(kind, b"/a").u32(offset_of!(CgroupRecord, path_len), len);
        assert_eq!(decode(&bytes.0), Err(Reject::PathLength { kind, len }));
    }
    assert_eq!(
        decode(&cgroup_bytes(kind, b"a/b").0),
        Err(Reject::RelativePath { kind })
    );
    assert_eq!(
        decode(
            &cgroup_bytes(kind, b"/a")
                .u64(offset_of!(Header, cgroup), 0)
                .0
        ),
        Err(Reject::NoCgroup { kind })
    );
}

#[test]
fn size_and_kind_must_agree() {
    assert_eq!(decode(&[]), Err(Reject::TooShort { len: 0, need: 24 }));
    assert_eq!(decode(&[0; 24]), Err(Reject::UnknownKind(0)));
    for (kind, bytes) in every_kind() {
        let need = bytes.len();
        let said = u32::try_from(need).unwrap();
        let cut = &bytes[..need - 1];
        assert_eq!(
            decode(cut),
            Err(Reject::SizeMismatch {
                kind,
                len: need - 1,
                said,
                need
            })
        );
        let longer = [bytes.as_slice(), &[0; 8]].concat();
        assert!(decode(&longer).is_err());
        let mut lying = bytes.clone();
        lying[offset_of!(Header, size)] ^= 1;
        assert!(decode(&lying).is_err());
    }
}

#[test]
fn a_reject_says_what_is_wrong() {
    let short = decode(&[1, 2, 3]).unwrap_err().to_string();
    assert_eq!(
        short,
        "record of 3 bytes is shorter than its 24-byte header"
    );
    let mut bytes = oom_bytes().0;
    bytes.pop();
    assert_eq!(
        decode(&bytes).unwrap_err().to_string(),
        "oom record: 127 bytes arrived, its header says 128, its kind takes 128"
    );
}

#[test]
fn a_comm_cannot_steer_the_terminal() {
    for (bytes, want) in [
        (b"bash\0junk".as_slice(), "bash"),
        (b"", ""),
        (b"a b", "a b"),
        (b"\x1b[31mred", "\\u{1b}[31mred"),
        (b"a\nb", "a\\nb"),
        (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ("žluť".as_bytes(), "žluť"),
        ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
    ] {
        assert_eq!(comm(bytes), want);
    }
    let full = process_bytes(RecordKind::ProcessExit).0;
    assert!(
        matches!(decode(&full), Ok(Record::ProcessExit(process)) if process.comm == "0123456789abcdef")
    );
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_rejected(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_right_header_over_any_bytes_never_panics(
        which in 0..RecordKind::ALL.len(),
        body in prop::collection::vec(any::<u8>(), 400),
    ) {
        let (kind, mut bytes) = every_kind().swap_remove(which);
        let head = offset_of!(Header, ktime_ns);
        let len = bytes.len();
        bytes[head..].copy_from_slice(&body[head..len]);
        match decode(&bytes) {
            Ok(record) => prop_assert_eq!(record.kind(), kind),
            Err(reject) => prop_assert!(!reject.to_string().is_empty()),
        }
    }

    #[test]
    fn a_mutated_record_never_panics(
        which in 0..RecordKind::ALL.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let (_, mut bytes) = every_kind().swap_remove(which);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        if let Ok(record) = decode(&bytes) {
            prop_assert_eq!(size_of_kind(record.kind()), bytes.len());
        }
    }
}
