//! Arrays of the kernel side in our address space, read without a system call.

use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags};

use super::load::{LoadError, one_line};

/// Elements that the kernel side writes in whole words.
pub(super) trait Shared {}

impl Shared for grey_common::Slot {}
impl Shared for grey_common::Streak {}
impl Shared for grey_common::CgroupLevel {}

/// An array map made with BPF_F_MMAPABLE.
pub(super) struct Mapped<T> {
    memory: NonNull<T>,
    bytes: usize,
    count: u32,
    // Programs that are loaded later name the map by this descriptor.
    _data: Option<MapData>,
    _elements: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone and is only accessed through atomics.
unsafe impl<T: Shared> Send for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// Takes the array `name` of `count` elements out of the object.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str, count: u32) -> Result<Self, LoadError> {
        let Some(Map::Array(data)) = ebpf.take_map(name) else {
            return Err(LoadError::Map(name, "missing or not an array".to_owned()));
        };
        let mut mapped = Mapped::of(&data, name, count)?;
        mapped._data = Some(data);
        Ok(mapped)
    }

    /// The first `count` elements of an array that somebody else keeps.
    pub(super) fn of(data: &MapData, name: &'static str, count: u32) -> Result<Self, LoadError> {
        let bytes = (count as usize * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let failed = |error: rustix::io::Errno| LoadError::Map(name, one_line(&error));
        // SAFETY: a fresh shared mapping of a map that was made with BPF_F_MMAPABLE and holds `count` values.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                data.fd().as_fd(),
                0,
            )
        }
        .map_err(failed)?;
        let memory = NonNull::new(memory.cast::<T>())
            .ok_or_else(|| LoadError::Map(name, "mapped at 0".to_owned()))?;
        Ok(Mapped {
            memory,
            bytes,
            count,
            _data: None,
            _elements: PhantomData,
        })
    }

    /// How many elements there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// An element, to be accessed through atomics only. It lives as long as self.
    pub(super) fn at(&self, index: u32) -> NonNull<T> {
        assert!(index < self.count, "element {index} of {}", self.count);
        // SAFETY: inside the mapping (checked above).
        unsafe { self.memory.add(index as usize) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `take` with these bounds and not handed out beyond self.
        let _ = unsafe { rustix::mm::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}
