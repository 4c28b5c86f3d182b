//! A file at which every write hangs in the kernel and cannot be ended, as at a knob whose lock somebody holds.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// `_IOWR(0xAA, 0x3F, struct uffdio_api)` and `_IOWR(0xAA, 0x00, struct uffdio_register)` of linux/userfaultfd.h.
const UFFDIO_API: libc::Ioctl = 0xC018_AA3F_u32 as libc::Ioctl;
const UFFDIO_REGISTER: libc::Ioctl = 0xC020_AA00_u32 as libc::Ioctl;
const PAGE: usize = 4096;

/// The file, and a thread that holds its inode's lock: it writes from a page that nobody provides.
pub(in crate::act) struct Hanging {
    pub(in crate::act) file: OwnedFd,
    /// At its end the writer goes on.
    faults: Option<OwnedFd>,
    page: usize,
    writer: Option<JoinHandle<()>>,
}

impl Hanging {
    /// A file with this text. `None` where userfaultfd(2) is not allowed.
    pub(in crate::act) fn new(text: &str) -> Option<Hanging> {
        let file = rustix::fs::memfd_create("hanging", MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&file, text.as_bytes(), 0).unwrap();
        // SAFETY: a system call without pointers; its descriptor is owned here.
        let faults = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK);
            OwnedFd::from_raw_fd(i32::try_from(fd).ok().filter(|fd| *fd >= 0)?)
        };
        // SAFETY: a new mapping.
        let page = unsafe {
            let (read_write, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), PAGE, read_write, private).unwrap()
        } as usize;
        let mut api = [0xAA_u64, 0, 0];
        // Start, length, mode (missing pages), and what the kernel answers.
        let mut register = [page as u64, PAGE as u64, 1, 0];
        // SAFETY: both structures have the size that the numbers name.
        unsafe {
            let fd = faults.as_raw_fd();
            assert_eq!(libc::ioctl(fd, UFFDIO_API, api.as_mut_ptr()), 0);
            assert_eq!(libc::ioctl(fd, UFFDIO_REGISTER, register.as_mut_ptr()), 0);
        }
        let to = file.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            // SAFETY: the mapping is PAGE bytes long; where it is gone by then, the kernel says EFAULT.
            unsafe { libc::pwrite(to.as_raw_fd(), page as *const _, PAGE, 0) };
        });
        // The fault is reported when the lock is held.
        assert!(super::readable(&faults, Duration::from_secs(10)));
        Some(Hanging {
            file,
            faults: Some(faults),
            page,
            writer: Some(writer),
        })
    }

    /// Writes go through again.
    pub(in crate::act) fn let_go(&mut self) {
        if self.faults.is_some() {
            // Without the page, what it was about to write never arrives.
            // SAFETY: a mapping of ours that nobody else uses.
            let _ = unsafe { rustix::mm::munmap(self.page as *mut _, PAGE) };
        }
        self.faults = None;
        if let Some(writer) = self.writer.take() {
            writer.join().unwrap();
        }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.let_go();
    }
}
