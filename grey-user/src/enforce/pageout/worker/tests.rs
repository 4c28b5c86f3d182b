use std::ffi::OsString;
use std::os::fd::AsFd as _;

use super::serve::{all, serve};
use super::*;

fn ranges(lengths: &[usize]) -> Vec<libc::iovec> {
    lengths
        .iter()
        .map(|length| libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: *length,
        })
        .collect()
}

#[test]
fn a_refused_range_costs_itself_and_no_other() {
    // The kernel stops at the range of 7 and tells of what it did before.
    let answer = all(&ranges(&[4, 4, 7, 4]), |left| {
        let good: u64 = left
            .iter()
            .take_while(|range| range.iov_len != 7)
            .map(|range| range.iov_len as u64)
            .sum();
        if good == 0 {
            Err(Errno::NOMEM)
        } else {
            Ok(good)
        }
    });
    assert_eq!(
        answer,
        Answer {
            advised: 12,
            refused: 1,
            error: 0
        }
    );
}

#[test]
fn a_process_that_is_gone_ends_it_and_no_answer_is_for_ever() {
    let gone = all(&ranges(&[4, 4]), |_| Err(Errno::SRCH));
    assert_eq!(gone.error, libc::ESRCH as u64);
    let nothing = all(&ranges(&[4, 4]), |_| Ok(0));
    assert_eq!((nothing.advised, nothing.refused), (0, 2));
}

#[test]
fn only_its_own_arguments_make_a_helper_and_nonsense_ends_it() {
    let args = |list: &[&str]| {
        main(
            list.iter()
                .map(OsString::from)
                .collect::<Vec<_>>()
                .into_iter(),
        )
    };
    assert!(args(&["grey-ebpf"]).is_none());
    assert!(args(&["grey-ebpf", "watch", MODE]).is_none());
    for bad in ["", "x", "-1", "0", "2"] {
        assert!(args(&["grey-ebpf", MODE, bad]).is_some(), "{bad:?}");
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    assert!(serve(null.as_fd(), &[0_u8; 8][..], Vec::new()).is_err());
    let mut long = 21_u32.to_le_bytes().to_vec();
    long.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(serve(null.as_fd(), &long[..], Vec::new()).is_err());
    assert!(serve(null.as_fd(), &[][..], Vec::new()).is_ok());
}

#[test]
fn a_helper_that_does_not_answer_is_ended_and_the_caller_has_its_turn() {
    let worker = || {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (requests, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Worker {
            child,
            requests,
            answers,
        }
    };
    let ranges = [4096..8192, 12288..16384];
    let mut late = worker();
    let mut turns = 0;
    let failure = late
        .advise(
            Advice::Pageout,
            &ranges,
            Duration::from_millis(200),
            &mut || {
                turns += 1;
                Ok(())
            },
        )
        .unwrap_err();
    assert!(
        failure.message.contains("no end within"),
        "{}",
        failure.message
    );
    assert!(turns >= 2, "{turns} turns");
    assert!(late.child.try_wait().unwrap().is_some(), "it still runs");
    let mut stopped = worker();
    let start = Instant::now();
    let failure = stopped
        .advise(
            Advice::Pageout,
            &ranges,
            Duration::from_secs(60),
            &mut || Err(Failure::failed("enough")),
        )
        .unwrap_err();
    assert_eq!(failure.message, "enough");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(stopped.child.try_wait().unwrap().is_some(), "it still runs");
}
