#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are what is meant"
)]

use super::*;

const SMAPS: &str = "\
7f0000000000-7f0004000000 rw-p 00000000 00:00 0 
Size:              65536 kB
Rss:               65536 kB
Referenced:            8 kB
Anonymous:         65536 kB
Locked:                0 kB
VmFlags: rd wr mr mw me ac sd 
7f0004000000-7f0004001000 rw-p 00000000 00:00 0                          [anon: arena 7-8 x]
Referenced:            0 kB
Anonymous:             4 kB
VmFlags: rd wr mr mw me ac sd 
7f0005000000-7f0005001000 rw-p 00000000 00:00 0 
Anonymous:             4 kB
VmFlags: rd wr mr mw me lo ac sd 
7f0006000000-7f0006001000 rw-p 00000000 00:00 0 
Anonymous:             4 kB
VmFlags: rd wr mr mw me ht sd 
7f0007000000-7f0007001000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
Anonymous:             4 kB
VmFlags: rd wr sh mr mw me ms sd 
7f0008000000-7f0008001000 rw-p 00000000 08:01 77                         /tmp/Anonymous: 9 kB
Anonymous:             4 kB
VmFlags: rd wr mr mw me ac sd 
7f0009000000-7f0009001000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
VmFlags: rd wr mr mw me ac sd 
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
Anonymous:            16 kB
VmFlags: rd wr mr mw me gd ac 
";

#[test]
fn only_private_anonymous_unlocked_memory_is_taken() {
    let starts: Vec<(u64, u64, u64)> = parse(SMAPS.as_bytes())
        .iter()
        .map(|mapping| (mapping.range.start, mapping.anon, mapping.referenced))
        .collect();
    assert_eq!(
        starts,
        [
            (0x7f00_0000_0000, 64 << 20, 8 << 10),
            (0x7f00_0400_0000, 4 << 10, 0)
        ]
    );
}

#[test]
fn odd_content_is_no_mapping_and_no_panic() {
    for bad in [
        "",
        "-",
        "x-y rw-p 0 0:0 0",
        "2-1 rw-p 0 0:0 0 \nAnonymous: 4 kB",
        "Anonymous: 4 kB",
    ] {
        assert_eq!(parse(bad.as_bytes()), [], "{bad:?}");
    }
    assert_eq!(parse(&[0xff, b'\n', 0xfe, b':']), []);
}

#[test]
fn stacks_are_cut_out_of_what_is_taken() {
    const P: u64 = 4096;
    let cut = |ranges: &[Range], spared: &[Range]| without(ranges.to_vec(), spared, P);
    assert_eq!(cut(&[0..10 * P], &[]), [0..10 * P]);
    assert_eq!(
        cut(
            &[0..10 * P, 20 * P..30 * P],
            &[3 * P + 5..4 * P + 1, 25 * P..90 * P]
        ),
        [0..3 * P, 5 * P..10 * P, 20 * P..25 * P]
    );
    assert_eq!(cut(&[3 * P..4 * P], &[0..9 * P]), []);
    assert_eq!(
        cut(&[3 * P..4 * P], &[0..3 * P, 4 * P..u64::MAX]),
        [3 * P..4 * P]
    );
}

#[test]
fn the_stack_of_a_waiting_thread_is_found() {
    let (sender, receiver) = channel::<()>();
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        let here = 0_u8;
        tell.send(&raw const here as u64).unwrap();
        let _ = receiver.recv();
    });
    let here = told.recv().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !stacks(&Host::live(), std::process::id())
        .iter()
        .any(|stack| stack.contains(&here))
    {
        assert!(Instant::now() < end, "no stack at {here:x}");
        std::thread::yield_now();
    }
    drop(sender);
    thread.join().unwrap();
}

#[test]
fn pages_that_are_away_shared_or_of_files_are_left() {
    let present = 1 << 63;
    let alone = 1 << 56;
    assert!(takeable(present | alone | 0x1234));
    assert!(takeable(present | alone | 1 << 55), "soft-dirty");
    for not in [
        0,
        alone,
        present,
        1 << 62 | alone,
        present | alone | 1 << 61,
    ] {
        assert!(!takeable(not), "{not:x}");
    }
}

/// What tells touched pages from others: reading one through /proc/PID/mem makes smaps count it.
#[test]
fn marked_pages_count_as_referenced_and_only_once() {
    const PAGES: usize = 64;
    let page = rustix::param::page_size();
    let bytes = (PAGES * page) as u64;
    // SAFETY: a new mapping overlaps nothing; its first and last page keep it apart from its neighbours.
    let start = unsafe {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        let rw = ProtFlags::READ | ProtFlags::WRITE;
        let all = mmap_anonymous(
            std::ptr::null_mut(),
            (PAGES + 2) * page,
            rw,
            MapFlags::PRIVATE,
        )
        .unwrap();
        let end = all.wrapping_byte_add((PAGES + 1) * page);
        mprotect(all, page, MprotectFlags::empty()).unwrap();
        mprotect(end, page, MprotectFlags::empty()).unwrap();
        all.wrapping_byte_add(page)
    };
    for at in 0..PAGES {
        // SAFETY: inside the mapping, which is writable and ours alone.
        unsafe { start.cast::<u8>().add(at * page).write_volatile(1) };
    }
    // SAFETY: the advice changes nothing of the content.
    let cleared = unsafe { libc::madvise(start, PAGES * page, libc::MADV_COLD) };
    assert_eq!(cleared, 0);
    let range = start as u64..start as u64 + bytes;
    let referenced = || {
        read(&Host::live(), std::process::id())
            .unwrap()
            .into_iter()
            .find(|mapping| mapping.range == range)
            .map(|mapping| mapping.referenced)
    };
    assert_eq!(referenced(), Some(0));
    for at in 0..PAGES / 4 {
        // SAFETY: as above.
        unsafe { start.cast::<u8>().add(at * page).read_volatile() };
    }
    assert_eq!(referenced(), Some(bytes / 4));
    let memory = File::open("/proc/self/mem").unwrap();
    assert_eq!(mark(&memory, &range, page as u64), bytes);
    assert_eq!(referenced(), Some(bytes));
    // SAFETY: the mapping is ours and ends here, with the pages around it.
    unsafe {
        let all = start.wrapping_byte_sub(page);
        rustix::mm::munmap(all, (PAGES + 2) * page).unwrap();
    }
    assert_eq!(mark(&memory, &range, page as u64), 0);
}

#[test]
fn the_resident_pages_of_this_process_are_found() {
    const PAGES: usize = 40;
    let page = rustix::param::page_size();
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let start = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            PAGES * page,
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::PRIVATE,
        )
    }
    .unwrap();
    // SAFETY: the range is ours; small pages make single ones resident.
    unsafe {
        rustix::mm::madvise(start, PAGES * page, rustix::mm::Advice::LinuxNoHugepage).unwrap();
    }
    for touched in [0, 1, 7, 39] {
        // SAFETY: inside the mapping, which is writable and ours alone.
        unsafe { start.cast::<u8>().add(touched * page).write_volatile(1) };
    }
    let at = |page_no: usize| start as u64 + (page_no * page) as u64;
    // SAFETY: as above; a read maps the zero page, which is not to be found.
    unsafe { start.cast::<u8>().add(20 * page).read_volatile() };
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let found = resident(&pagemap, &(at(0)..at(PAGES)), page as u64).unwrap();
    assert_eq!(found, [at(0)..at(2), at(7)..at(8), at(39)..at(40)]);
    let mapping = read(&Host::live(), std::process::id())
        .unwrap()
        .into_iter()
        .find(|mapping| mapping.range.contains(&at(0)));
    assert!(mapping.is_some_and(|mapping| mapping.anon >= 4 * page as u64));
    // SAFETY: the mapping is ours and ends here.
    unsafe { rustix::mm::munmap(start, PAGES * page).unwrap() };
}
