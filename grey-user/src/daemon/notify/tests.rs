use super::*;
use crate::host::fixture::Tree;

fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// A manager's socket under this address.
fn listening(address: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

#[test]
fn a_manager_hears_of_start_reload_life_and_end_under_a_path() {
    let tree = Tree::new();
    let path = tree.path("/notify");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let manager = listening(&SocketAddr::from_pathname(&path).unwrap());
    let notify = Notify::new(Some(path.as_os_str()), None).unwrap();
    notify.ready("policy guest\nREADY=0");
    assert_eq!(heard(&manager), "READY=1\nSTATUS=policy guest READY=0");
    notify.reloading();
    let reloading = heard(&manager);
    let us = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let now = clock_gettime(ClockId::Monotonic);
    let told: i64 = us.unwrap().parse().unwrap();
    let now = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    assert!((now - 10_000_000..=now).contains(&told), "{told} at {now}");
    notify.alive();
    assert_eq!(heard(&manager), "WATCHDOG=1");
    notify.ready(&"ä".repeat(400));
    let cut = "ä".repeat(256);
    assert_eq!(heard(&manager), format!("READY=1\nSTATUS={cut}"));
    notify.stopping();
    assert_eq!(heard(&manager), "STOPPING=1");
}

#[test]
fn a_manager_may_have_an_abstract_name() {
    let name = format!("grey-ebpf/test/{}", std::process::id());
    let manager = listening(&SocketAddr::from_abstract_name(&name).unwrap());
    let notify = Notify::new(Some(OsStr::new(&format!("@{name}"))), None).unwrap();
    notify.alive();
    assert_eq!(heard(&manager), "WATCHDOG=1");
}

#[test]
fn without_a_manager_nobody_is_told() {
    for none in [None, Some(OsStr::new(""))] {
        let notify = Notify::new(none, None).unwrap();
        notify.ready("");
        notify.alive();
        assert_eq!(notify.every(), None);
    }
}

#[test]
fn an_address_that_leads_nowhere_is_an_error() {
    for wrong in ["/no/such/socket", "vsock:2:1234", "relative"] {
        assert!(
            Notify::new(Some(OsStr::new(wrong)), None).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn a_manager_that_does_not_read_holds_nobody_up() {
    let name = format!("grey-ebpf/deaf/{}", std::process::id());
    let _manager = listening(&SocketAddr::from_abstract_name(&name).unwrap());
    let notify = Notify::new(Some(OsStr::new(&format!("@{name}"))), None).unwrap();
    // More than net.unix.max_dgram_qlen lets wait, whatever it is within reason.
    for _ in 0..5000 {
        notify.alive();
    }
}

#[test]
fn half_of_the_watchdogs_time_is_ours() {
    for (us, of, want) in [
        (Some("30000000"), None, Some(30)),
        (Some("30000000"), Some("42"), Some(30)),
        (Some("30000000"), Some("43"), None),
        (Some("30000000"), Some("x"), None),
        (Some("0"), None, None),
        (Some("-1"), None, None),
        (Some("soon"), None, None),
        (None, Some("42"), None),
    ] {
        let period = period(us, of, 42);
        assert_eq!(period, want.map(Duration::from_secs), "{us:?} {of:?}");
    }
    let notify = Notify {
        socket: None,
        watchdog: Some(Duration::from_secs(30)),
    };
    assert_eq!(notify.every(), Some(Duration::from_secs(15)));
}
