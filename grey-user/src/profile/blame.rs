//! Which function of a stack is to blame: allocators, runtimes and the C library only pass on what somebody else wanted.

use super::document::Frame;

/// Begins of the names of files whose functions only serve others.
const MODULES: [&str; 16] = [
    "libc.so",
    "libc-2",
    "libc.musl",
    "ld-linux",
    "ld-musl",
    "ld-2",
    "libstdc++.so",
    "libc++.so",
    "libc++abi.so",
    "libgcc_s.so",
    "libpthread",
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
    "libm.so",
    "[vdso]",
];

/// Begins of the names of functions that only serve others, where they are linked in.
const FUNCTIONS: [&str; 40] = [
    "std::",
    "core::",
    "alloc::",
    "hashbrown::",
    "<std::",
    "<core::",
    "<alloc::",
    "<hashbrown::",
    "_ZSt",
    "_ZNSt",
    "_ZNKSt",
    "_ZN9__gnu_cxx",
    "__gnu_cxx::",
    "__rust_",
    "__rdl_",
    "__rg_",
    "operator new",
    "memset",
    "memcpy",
    "memmove",
    "__mem",
    "__libc_",
    "__malloc",
    "malloc",
    "calloc",
    "realloc",
    "_int_",
    "int_malloc",
    "sysmalloc",
    "posix_memalign",
    "aligned_alloc",
    "je_",
    "tc_",
    "mi_",
    "__GI_",
    "__mmap",
    "mmap",
    "alloc_perturb",
    "checked_request2size",
    "ptmalloc",
];

/// How perf maps mark functions of a script: Python 3.12, V8, V8 before 9.
const SCRIPTED: [&str; 3] = ["py::", "JS:", "LazyCompile:"];

/// Whole names of the same.
const NAMES: [&str; 12] = [
    "brk", "sbrk", "__brk", "__sbrk", "read", "__read", "pread64", "recv", "recvfrom", "readv",
    "strdup", "getline",
];

/// The name of the function to blame; the frames are the innermost first.
pub(super) fn blamed(frames: &[Frame]) -> String {
    // What a runtime does it does for the program: perf maps mark Python's and JavaScript's own functions.
    let scripted = || {
        frames
            .iter()
            .filter_map(|frame| frame.function.as_deref())
            .filter(|name| SCRIPTED.iter().any(|mark| name.starts_with(mark)))
    };
    // Node's own JavaScript calls the program's, and is called by it.
    let own = scripted().find(|name| !name.contains(" node:"));
    if let Some(function) = own.or_else(|| scripted().next()) {
        return function.to_owned();
    }
    let user = || frames.iter().filter(|frame| !frame.kernel);
    user()
        .find(|frame| !serves(frame))
        .or_else(|| user().find(|frame| frame.function.is_some()))
        .or_else(|| user().next())
        .or_else(|| frames.first())
        .map_or_else(|| "[unknown]".to_owned(), Frame::name)
}

fn serves(frame: &Frame) -> bool {
    if let Some(module) = &frame.module {
        let file = module.rsplit('/').next().unwrap_or(module);
        if MODULES.iter().any(|begin| file.starts_with(begin)) {
            return true;
        }
    }
    let Some(name) = &frame.function else {
        return false;
    };
    NAMES.contains(&name.as_str())
        || FUNCTIONS.iter().any(|begin| bare(name).starts_with(begin))
        || is_std_for_any(name)
}

/// `<u8 as alloc::…>::f`: a trait of Rust's library for a type that is nobody's own.
fn is_std_for_any(name: &str) -> bool {
    name.strip_prefix('<')
        .and_then(|name| name.split_once(" as "))
        .is_some_and(|(of, what)| {
            !of.contains("::")
                && ["alloc::", "core::", "std::"]
                    .iter()
                    .any(|begin| what.starts_with(begin))
        })
}

/// A C++ template's name has its return type before it: `void std::fill<…>(…)`.
fn bare(name: &str) -> &str {
    let end = name.find(['<', '(']).unwrap_or(name.len());
    match name[..end].rfind(' ') {
        Some(space) if !name.starts_with("operator ") => &name[space + 1..],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str]) -> Vec<Frame> {
        names
            .iter()
            .map(|name| {
                let (module, function) = name.split_once('!').unwrap_or(("/usr/bin/app", name));
                Frame {
                    function: (!function.is_empty()).then(|| function.to_owned()),
                    module: Some(module.to_owned()),
                    ..Frame::default()
                }
            })
            .collect()
    }

    #[test]
    fn whoever_called_the_allocator_is_to_blame() {
        for (frames, blame) in [
            (
                &["memset", "calloc", "remember(int)", "main"][..],
                "remember(int)",
            ),
            (
                &[
                    "/lib/x86_64-linux-gnu/libc.so.6!",
                    "void std::vector<int, std::allocator<int> >::_M_realloc_insert<int>(int&&)",
                    "std::vector<int, std::allocator<int> >::push_back(int&&)",
                    "Cache::add(int)",
                ],
                "Cache::add(int)",
            ),
            (
                &[
                    "core::ptr::write",
                    "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
                    "app::leak",
                ],
                "app::leak",
            ),
            (
                &[
                    "<u8 as alloc::vec::spec_from_elem::SpecFromElem>::from_elem",
                    "<app::Rows as core::iter::Iterator>::next",
                ],
                "<app::Rows as core::iter::Iterator>::next",
            ),
            (&["operator new[](unsigned long)", "grow()"], "grow()"),
            (
                &[
                    "PyBytes_FromStringAndSize",
                    "_PyEval_EvalFrameDefault",
                    "py::leak:/srv/app.py",
                    "_PyEval_Vector",
                    "py::<module>:/srv/app.py",
                ],
                "py::leak:/srv/app.py",
            ),
            (
                &[
                    "v8::internal::Runtime_NewArray(int)",
                    "JS:^add node:buffer:10:2",
                    "JS:*keep /srv/app.js:2:20",
                    "JS:^listOnTimeout node:internal/timers:524:25",
                ],
                "JS:*keep /srv/app.js:2:20",
            ),
            (
                &[
                    "v8::internal::Heap::Grow()",
                    "JS:^listOnTimeout node:internal/timers:524:25",
                ],
                "JS:^listOnTimeout node:internal/timers:524:25",
            ),
            (&["memset"], "memset"),
            (&[][..], "[unknown]"),
        ] {
            assert_eq!(blamed(&stack(frames)), blame, "{frames:?}");
        }
    }
}
