use std::os::unix::fs::symlink;

use super::*;
use crate::host::fixture::Tree;

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// One row as the kernel prints it: state, port, receive queue, inode.
fn line(state: &str, port: u16, queue: u64, inode: u64) -> String {
    format!(
        "   0: 0100007F:{port:04X} 00000000:0000 {state} 00000000:{queue:08X} 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

/// A process as /proc has it, with these sockets among its files.
fn process(tree: &Tree, pid: u32, started: u64, pending: (u64, u64), sockets: &[u64]) {
    let at = |file: &str| format!("/proc/{pid}/{file}");
    let stat = format!("{pid} (web) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0 0\n");
    tree.file(&at("stat"), &stat).file(&at("comm"), "web\n");
    let status = format!(
        "Name:\tweb\nSigQ:\t1/7\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t0000000000010000\n",
        pending.0, pending.1
    );
    tree.file(&at("status"), &status);
    tree.dir(&at("fd"));
    for (number, inode) in sockets.iter().enumerate() {
        let link = tree.path(at(&format!("fd/{}", number + 3)));
        let _ = std::fs::remove_file(&link);
        symlink(format!("socket:[{inode}]"), link).unwrap();
    }
    let null = tree.path(at("fd/0"));
    let _ = std::fs::remove_file(&null);
    symlink("/dev/null", null).unwrap();
    if !tree.path(at("ns/net")).exists() {
        tree.file(&at("ns/net"), "");
    }
}

fn table(tree: &Tree, pid: u32, name: &str, rows: &[String]) {
    let text = format!("{HEADING}{}", rows.concat());
    tree.file(&format!("/proc/{pid}/net/{name}"), &text);
}

/// What wants these processes to run after `then` was done to them.
fn call(tree: &Tree, pids: &[u32], then: impl FnOnce(&Tree)) -> Option<Call> {
    let host = tree.host();
    let base = Waiting::read(&host, pids, None);
    assert_eq!(base.call(&Waiting::read(&host, pids, Some(&base))), None);
    then(tree);
    let now = Waiting::read(&host, pids, Some(&base));
    base.call(&now)
}

#[test]
fn a_connection_at_a_listening_socket_is_a_call() {
    let tree = Tree::new();
    process(&tree, 7, 100, (0, 0), &[501]);
    table(&tree, 7, "tcp", &[line("0A", 8080, 2, 501)]);
    let came = call(&tree, &[7], |tree| {
        table(tree, 7, "tcp", &[line("0A", 8080, 3, 501)]);
    });
    let want = Call::Connections {
        port: 8080,
        count: 1,
    };
    assert_eq!(came.as_ref(), Some(&want));
    assert_eq!(want.to_string(), "a connection waits at TCP port 8080");
}

#[test]
fn data_on_a_connection_and_datagrams_are_calls_and_those_of_others_are_not() {
    let rows = |queue: u64| {
        vec![
            line("01", 22, queue, 900),
            line("01", 80, queue, 0),
            line("0A", 25, queue, 901),
        ]
    };
    for (name, tcp) in [
        ("tcp", true),
        ("tcp6", true),
        ("udp", false),
        ("udp6", false),
    ] {
        let tree = Tree::new();
        process(&tree, 7, 100, (0, 0), &[501]);
        let mut before = rows(0);
        before.push(line("01", 53, 0, 501));
        table(&tree, 7, name, &before);
        let host = tree.host();
        let base = Waiting::read(&host, &[7], None);
        // A socket of another process, a connection that nobody has accepted, another's listening socket.
        let mut foreign = rows(99);
        foreign.push(line("01", 53, 0, 501));
        table(&tree, 7, name, &foreign);
        let now = Waiting::read(&host, &[7], Some(&base));
        assert_eq!(base.call(&now), None, "{name}");
        let mut own = rows(0);
        own.push(line("01", 53, 17, 501));
        table(&tree, 7, name, &own);
        let now = Waiting::read(&host, &[7], Some(&base));
        assert_eq!(
            base.call(&now),
            Some(Call::Data { tcp, port: 53 }),
            "{name}"
        );
    }
}

#[test]
fn a_namespace_is_looked_at_by_one_of_its_processes_and_each_namespace_is() {
    let tree = Tree::new();
    process(&tree, 7, 100, (0, 0), &[501]);
    process(&tree, 8, 100, (0, 0), &[502]);
    process(&tree, 9, 100, (0, 0), &[501]);
    // 7 and 8 share one; the same inode in 9's is another socket.
    std::fs::remove_file(tree.path("/proc/8/ns/net")).unwrap();
    std::fs::hard_link(tree.path("/proc/7/ns/net"), tree.path("/proc/8/ns/net")).unwrap();
    table(&tree, 7, "tcp", &[]);
    table(&tree, 8, "tcp", &[line("0A", 66, 5, 502)]);
    table(&tree, 9, "tcp", &[]);
    let came = call(&tree, &[7, 8, 9], |tree| {
        table(tree, 8, "tcp", &[line("0A", 66, 9, 502)]);
    });
    assert_eq!(came, None, "read a second time through 8");
    let came = call(&tree, &[7, 8, 9], |tree| {
        table(tree, 7, "tcp", &[line("0A", 66, 9, 502)]);
    });
    let want = Call::Connections { port: 66, count: 9 };
    assert_eq!(came, Some(want));
    table(&tree, 7, "tcp", &[]);
    let came = call(&tree, &[7, 8, 9], |tree| {
        table(tree, 9, "tcp", &[line("0A", 67, 1, 501)]);
    });
    assert_eq!(came, Some(Call::Connections { port: 67, count: 1 }));
}

#[test]
fn a_signal_is_a_call_unless_it_waited_before() {
    let tree = Tree::new();
    // SIGUSR1 waits already.
    process(&tree, 7, 100, (0, 1 << 9), &[]);
    for (pending, signal) in [((1 << 13, 1 << 9), 14), ((0, 1 << 9 | 1 << 33), 34)] {
        let came = call(&tree, &[7], |tree| process(tree, 7, 100, pending, &[]));
        let want = Call::Signal {
            pid: 7,
            comm: "web".to_owned(),
            signal,
        };
        assert_eq!(came.as_ref(), Some(&want));
        let name = if signal == 14 { "SIGALRM" } else { "signal 34" };
        assert_eq!(want.to_string(), format!("{name} waits for web (7)"));
        process(&tree, 7, 100, (0, 1 << 9), &[]);
    }
}

#[test]
fn a_process_that_joins_is_a_call_one_that_ends_is_not() {
    let tree = Tree::new();
    process(&tree, 7, 100, (0, 0), &[]);
    process(&tree, 8, 100, (0, 0), &[]);
    let host = tree.host();
    let base = Waiting::read(&host, &[7, 8], None);
    tree.without("/proc/8");
    // Still listed, and gone when it is looked at; and not listed any more.
    for pids in [&[7, 8][..], &[7]] {
        assert_eq!(base.call(&Waiting::read(&host, pids, Some(&base))), None);
    }
    // Another one of the same pid, with nothing of the old one's.
    process(&tree, 8, 230, (0, 0), &[]);
    let want = Call::Joined {
        pid: 8,
        comm: "web".to_owned(),
    };
    let now = Waiting::read(&host, &[7, 8], Some(&base));
    assert_eq!(base.call(&now).as_ref(), Some(&want));
    assert_eq!(want.to_string(), "web (8) was put into it");
}

#[test]
fn what_comes_while_they_are_being_stopped_is_a_call() {
    let tree = Tree::new();
    let host = tree.host();
    process(&tree, 7, 100, (0, 1), &[501]);
    table(&tree, 7, "tcp", &[line("0A", 80, 4, 501)]);
    let before = Waiting::read(&host, &[7], None);
    // A process and a socket more, with something waiting; all of it older than the standstill.
    process(&tree, 7, 100, (0, 1), &[501]);
    process(&tree, 8, 110, (0, 0), &[]);
    let stands = Waiting::read(&host, &[7, 8], None).since(&before);
    let now = Waiting::read(&host, &[7, 8], Some(&stands));
    assert_eq!(stands.call(&now), None);

    table(&tree, 7, "tcp", &[line("0A", 80, 5, 501)]);
    let stands = Waiting::read(&host, &[7, 8], None).since(&before);
    let now = Waiting::read(&host, &[7, 8], Some(&stands));
    assert_eq!(
        stands.call(&now),
        Some(Call::Connections { port: 80, count: 1 })
    );
    process(&tree, 7, 100, (0, 3), &[501]);
    let stands = Waiting::read(&host, &[7, 8], None).since(&before);
    let now = Waiting::read(&host, &[7, 8], Some(&stands));
    assert!(matches!(
        stands.call(&now),
        Some(Call::Signal { signal: 2, .. })
    ));
}

#[test]
fn what_cannot_be_read_is_one_kind_less_and_said() {
    let tree = Tree::new();
    process(&tree, 7, 100, (0, 0), &[501]);
    // No file of its can be read: a folder in its place fails for root too.
    tree.without("/proc/7/fd").file("/proc/7/fd", "");
    tree.without("/proc/7/status").dir("/proc/7/status");
    let host = tree.host();
    let base = Waiting::read(&host, &[7], None);
    let blind: Vec<&str> = base.blind().collect();
    assert!(
        blind.len() == 2
            && blind[0].starts_with("open files of processes: ")
            && blind[1].starts_with("signals: "),
        "{blind:?}"
    );
    let now = Waiting::read(&host, &[7], Some(&base));
    assert_eq!(base.call(&now), None);
    // The rest is seen all the same.
    process(&tree, 9, 100, (0, 0), &[]);
    let now = Waiting::read(&host, &[7, 9], Some(&base));
    assert!(matches!(base.call(&now), Some(Call::Joined { pid: 9, .. })));
}

#[test]
fn only_so_much_is_looked_at_and_the_rest_is_said() {
    let tree = Tree::new();
    let many: Vec<u64> = (0..FDS as u64 + 1).collect();
    process(&tree, 7, 100, (0, 0), &many);
    let waiting = Waiting::read(&tree.host(), &[7], None);
    let want = format!("of 7's open files only {FDS} are looked at");
    assert_eq!(waiting.blind().collect::<Vec<_>>(), [want]);
    let mut processes = Vec::new();
    for pid in 1..=PROCESSES as u32 + 1 {
        processes.push(pid);
        process(&tree, pid, 100, (0, 0), &[]);
    }
    let last = PROCESSES as u32 + 1;
    let base = Waiting::read(&tree.host(), &processes, None);
    assert!(base.blind().any(|why| why.contains("257 processes")));
    // The last one is counted, and not looked at.
    process(&tree, last, 100, (1, 1), &[]);
    let now = Waiting::read(&tree.host(), &processes, Some(&base));
    assert_eq!(base.call(&now), None);
    process(&tree, last + 1, 100, (0, 0), &[]);
    processes.push(last + 1);
    let now = Waiting::read(&tree.host(), &processes, Some(&base));
    assert!(matches!(base.call(&now), Some(Call::Joined { .. })));
}

#[test]
fn long_tables_are_read_as_far_as_there_is_room_for_all() {
    let tree = Tree::new();
    let rows = TABLE as usize / line("0A", 80, 0, 600).len() + 1;
    let foreign = vec![line("0A", 80, 0, 600); rows];
    let namespaces = (ALL_TABLES / TABLE) as u32;
    let pids: Vec<u32> = (1..=namespaces + 1).collect();
    for pid in &pids {
        process(&tree, *pid, 100, (0, 0), &[u64::from(*pid)]);
        let mut rows = vec![line("0A", 90, 1, u64::from(*pid))];
        if *pid <= namespaces {
            rows.extend_from_slice(&foreign);
        }
        table(&tree, *pid, "tcp", &rows);
    }
    let waiting = Waiting::read(&tree.host(), &pids, None);
    // The first row of each is seen, but for the last one's, which is not opened any more.
    assert_eq!(waiting.queues.len(), namespaces as usize);
    let want = "of tables of sockets only 6 MiB are read, of all 24";
    assert_eq!(waiting.blind().collect::<Vec<_>>(), [want]);
}

#[test]
fn bad_rows_are_passed_over() {
    for text in [
        "",
        "sl",
        HEADING,
        "0: 1:2 3:4 01 5 00 00 0 0 77",
        "0: zz 0:0 01 0:1 0 0 0 0 7",
    ] {
        assert_eq!(row(text, true), None, "{text}");
    }
    assert_eq!(pending(b"SigPnd:\tx\nName:\t1\n"), None);
    assert_eq!(pending(b"SigPnd:\t0000000000000100\n"), Some(0x100));
}

#[test]
fn a_listening_socket_of_this_machine_calls_when_somebody_connects() {
    let host = Host::live();
    let own = std::process::id();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let base = Waiting::read(&host, &[own], None);
    if base.blind().next().is_some() {
        // Nobody may look there, or there are more files than are looked at.
        return;
    }
    let _client = std::net::TcpStream::connect(address).unwrap();
    let now = Waiting::read(&host, &[own], Some(&base));
    // Other tests of this process have sockets too.
    let key = now
        .queues
        .iter()
        .find(|(_, queue)| queue.port == address.port() && queue.listens);
    let (socket, queue) = key.unwrap();
    assert_eq!(queue.length, base.queues[socket].length + 1);
}
