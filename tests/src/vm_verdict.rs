//! Verdicts while it happens: real programs leak, or only look like it, and `watch` says which.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::timing::{event_us, wall_us};
use crate::harness::{Outcome, Trial, wait_until};
use crate::swap::Swap;
use crate::verdict::{HEAP, Life, Live, TRAFFIC, bytes, lacks};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::new(
            "vm_verdict_of_a_leak_comes_in_time_and_neither_redis_nor_a_collector_is_accused",
            a_leak_beside_redis_and_a_collector,
        )
        .with_deadline(Duration::from_secs(300))
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_verdict_of_a_leak_comes_also_while_its_memory_is_reclaimed",
            a_leak_under_enforcement,
        )
        .with_deadline(Duration::from_secs(150))
        .shown_on(&["6.12", "7.2"]),
        Trial::new(
            "vm_verdict_of_a_reservation_is_no_leak_and_a_vector_beside_one_is",
            a_reservation_and_a_vector,
        )
        .with_deadline(Duration::from_secs(150))
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_verdict_of_freed_memory_that_malloc_keeps_is_no_leak",
            what_malloc_keeps,
        )
        .with_deadline(Duration::from_secs(180))
        .shown_on(&["6.12"]),
        Trial::new(
            "vm_verdict_of_page_cache_and_tmpfs_is_no_leak",
            page_cache_and_tmpfs,
        )
        .with_deadline(Duration::from_secs(150))
        .shown_on(&["6.12"]),
    ]
}

const M: u64 = 1 << 20;
const SECOND: i64 = 1_000_000;
const PYTHON: &str = "/debian/usr/bin/python3.11";
const REDIS: &str = "/debian/usr/bin/redis-server";
/// A call within this of the onset is in time for a limit that is two minutes away.
const IN_TIME: i64 = 30 * SECOND;
/// Start of an emulated program.
const START: Duration = Duration::from_secs(60);

/// 4 MiB/s: the limit is two minutes away. The longest of the tests, so it is that on one kernel, and shorter on the
/// others.
fn limit_of_the_leak() -> Result<u64> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(if release.starts_with("6.12") {
        512 * M
    } else {
        256 * M
    })
}

fn a_leak_beside_redis_and_a_collector() -> Result<Outcome> {
    const RATE: u64 = 4 * M;
    const KEPT: u64 = 48 * M;
    if let Some(reason) = lacks(&[HEAP, REDIS, PYTHON]) {
        return Outcome::skipped(reason);
    }
    let limit = limit_of_the_leak()?;
    let mut leaker = Life::new("leaker", Some(limit), false)?;
    let mut redis = Life::new("redis", None, false)?;
    let mut client = Life::new("client", None, false)?;
    let mut collector = Life::new("collector", Some(256 * M), false)?;
    let mut live = Live::start(&[&leaker, &redis, &client, &collector])?;
    let kept = KEPT.to_string();
    redis.run(
        &[
            REDIS,
            "--port",
            "6379",
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory",
            &kept,
            "--maxmemory-policy",
            "allkeys-lru",
        ],
        &[],
    )?;
    collector.run(
        &[PYTHON, TRAFFIC, "cycles", "1000000"],
        &[("MALLOC_MMAP_THRESHOLD_", "65536")],
    )?;
    wait_until("redis answers", START, || Ok(info("used_memory").ok()))?;
    // Full within half a minute, and busy from then on.
    client.run(
        &[PYTHON, TRAFFIC, "redis", "6379", "100000", "4000", "500"],
        &[],
    )?;
    leaker.run(&[HEAP, "leak", &RATE.to_string(), "15"], &[])?;
    let onset = leaker.program()?.onset(START)?;
    let verdict = live.leak(&leaker, Duration::from_secs(60))?;
    let called = event_us(&verdict)?;
    let path = leaker.path().to_owned();
    let oom = live
        .watch
        .wait_event("the end of the leak", Duration::from_secs(200), |event| {
            event["type"] == "oom" && event["cgroup"]["path"] == path.as_str()
        })?;
    let died = event_us(&oom)?;
    let latency = called - onset;
    let ttl = verdict["verdict"]["ttl_s"]
        .as_f64()
        .context("no ttl_s in the verdict")?;
    let really = (died - called) as f64 / 1e6;
    let lived = (died - onset) as f64 / 1e6;
    let rate = limit as f64 / lived / M as f64;
    println!(
        "{rate:.2} MiB/s into {} MiB: confirmed {:.1} s after the onset, {:.0} % of the time to the limit; ttl_s {ttl:.1}, \
         really {really:.1} s ({:+.1} %)",
        limit / M,
        latency as f64 / 1e6,
        100.0 * latency as f64 / 1e6 / lived,
        100.0 * (ttl / really - 1.0)
    );
    ensure!(
        (3.6..4.4).contains(&rate),
        "the guest leaked {rate:.2} MiB/s instead of 4"
    );
    ensure!(
        (0..=IN_TIME).contains(&latency),
        "confirmed {latency} us after the onset: {verdict}"
    );
    ensure!(
        (0.8..=1.2).contains(&(ttl / really)),
        "ttl_s {ttl}, really {really}: {verdict}"
    );
    ensure!(
        verdict["verdict"]["limit_cgroup"] == path.as_str()
            && verdict["verdict"]["limit_bytes"] == limit,
        "another limit: {verdict}"
    );
    // The others did what they are here for.
    let used = wait_until("redis is full", Duration::from_secs(90), || {
        Ok((info("evicted_keys")? > 0).then_some(info("used_memory")?))
    })?;
    let teeth = largest_fall(&live.samples(&collector)?);
    println!(
        "redis holds {} MiB of {}, the collector's largest fall {} MiB",
        used / M,
        KEPT / M,
        teeth / M
    );
    ensure!(used > KEPT * 9 / 10, "redis holds {used} bytes only");
    ensure!(teeth > 10 * M, "the collector gave back {teeth} bytes only");
    live.ensure_silent(&redis, "redis")?;
    live.ensure_silent(&client, "its client")?;
    live.ensure_silent(&collector, "the collector")?;
    Ok(Outcome::Passed)
}

/// A figure of Redis's INFO.
fn info(key: &str) -> Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", 6379)).context("connect to redis")?;
    stream.write_all(b"INFO\r\nQUIT\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .with_context(|| format!("no {key} in INFO"))?
        .trim()
        .parse()
        .with_context(|| format!("{key} in INFO"))
}

/// How far anon fell from one sample to the next.
fn largest_fall(samples: &[Value]) -> u64 {
    samples
        .windows(2)
        .map(|pair| bytes(&pair[0], "anon").saturating_sub(bytes(&pair[1], "anon")))
        .max()
        .unwrap_or(0)
}

/// Memory is taken away every two seconds about as fast as it comes; it goes to swap.
fn a_leak_under_enforcement() -> Result<Outcome> {
    const RATE: u64 = 2 * M;
    if let Some(reason) = lacks(&[HEAP]) {
        return Outcome::skipped(reason);
    }
    let _swap = Swap::on(512 * M)?;
    let mut leaker = Life::new("enforced", Some(256 * M), true)?;
    let mut live = Live::start(&[&leaker])?;
    leaker.run(&[HEAP, "leak", &RATE.to_string(), "15"], &[])?;
    let (stop, rounds) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let reclaim = leaker.cgroup.has("memory.reclaim");
    let enforcer = {
        let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
        let directory = leaker.cgroup.directory().to_owned();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // A write that gets less than it asked for fails, and has taken something all the same.
                if reclaim {
                    let _ = std::fs::write(directory.join("memory.reclaim"), (4 * M).to_string());
                } else {
                    let current = std::fs::read_to_string(directory.join("memory.current"));
                    let current: u64 = current
                        .ok()
                        .and_then(|text| text.trim().parse().ok())
                        .unwrap_or(0);
                    let high = current.saturating_sub(4 * M).max(2 * M);
                    let _ = std::fs::write(directory.join("memory.high"), high.to_string());
                    let _ = std::fs::write(directory.join("memory.high"), "max");
                }
                rounds.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_secs(2));
            }
        })
    };
    let onset = leaker.program()?.onset(START)?;
    let verdict = live.leak(&leaker, Duration::from_secs(75));
    stop.store(true, Ordering::Relaxed);
    let _ = enforcer.join();
    let verdict = verdict?;
    let latency = event_us(&verdict)? - onset;
    let last = live
        .samples(&leaker)?
        .pop()
        .context("no sample of the leak")?;
    let (anon, swap) = (bytes(&last, "anon"), bytes(&last, "swap"));
    println!(
        "confirmed {:.1} s after the onset, after {} times of reclaim through {}; {} MiB in memory, {} MiB in swap, \
         growth_bytes {}, ttl_s {}",
        latency as f64 / 1e6,
        rounds.load(Ordering::Relaxed),
        if reclaim {
            "memory.reclaim"
        } else {
            "memory.high"
        },
        anon / M,
        swap / M,
        verdict["verdict"]["growth_bytes"],
        verdict["verdict"]["ttl_s"],
    );
    // Without that much in swap the reclaim would have hidden nothing.
    ensure!(swap > anon, "{anon} bytes in memory, {swap} in swap");
    ensure!(
        (0..=IN_TIME).contains(&latency),
        "confirmed {latency} us after the onset: {verdict}"
    );
    Ok(Outcome::Passed)
}

/// 400 GiB that nobody touches, once alone and once beside a vector that grows for ever.
fn a_reservation_and_a_vector() -> Result<Outcome> {
    const RESERVED: &str = "429496729600";
    if let Some(reason) = lacks(&[HEAP]) {
        return Outcome::skipped(reason);
    }
    let mut reserver = Life::new("reserver", Some(256 * M), false)?;
    let mut vector = Life::new("vector", Some(512 * M), false)?;
    let mut live = Live::start(&[&reserver, &vector])?;
    reserver.run(&[HEAP, "reserve", RESERVED], &[])?;
    vector.run(&[HEAP, "vector", &(4 * M).to_string(), RESERVED, "15"], &[])?;
    let onset = vector.program()?.onset(START)?;
    let verdict = live.leak(&vector, Duration::from_secs(60))?;
    let latency = event_us(&verdict)? - onset;
    println!(
        "the vector: confirmed {:.1} s after the onset, ttl_s {}; {:?}",
        latency as f64 / 1e6,
        verdict["verdict"]["ttl_s"],
        live.told_of(&vector)
    );
    ensure!(
        (0..=IN_TIME).contains(&latency),
        "confirmed {latency} us after the onset: {verdict}"
    );
    ensure!(
        verdict["verdict"]["memory"] == "anon",
        "the vector's memory is what leaks: {verdict}"
    );
    live.until(&reserver, wall_us() + 5 * SECOND)?;
    live.ensure_silent(&reserver, "the reservation alone")?;
    let told = live
        .verdicts(&reserver)?
        .into_iter()
        .find(|event| event["verdict"]["cause"] == "reservation")
        .context("nobody was told of the reservation")?;
    let level = told["verdict"]["evidence"]["level_bytes"].as_u64();
    ensure!(
        level >= Some(400 << 30) && told["verdict"]["memory"] == "virtual",
        "another reservation: {told}"
    );
    Ok(Outcome::Passed)
}

/// A spike of small objects, in C and in Python; a few survivors keep malloc from giving anything back.
fn what_malloc_keeps() -> Result<Outcome> {
    const C_BYTES: u64 = 250_000_000;
    const PYTHON_BYTES: u64 = 390_000_000;
    if let Some(reason) = lacks(&[HEAP, PYTHON]) {
        return Outcome::skipped(reason);
    }
    let mut c = Life::new("plateau-c", Some(512 * M), false)?;
    let mut python = Life::new("plateau-python", Some(512 * M), false)?;
    let mut live = Live::start(&[&c, &python])?;
    c.run(&[HEAP, "plateau", &C_BYTES.to_string(), "1000"], &[])?;
    python.run(
        &[PYTHON, TRAFFIC, "spike", &PYTHON_BYTES.to_string(), "1000"],
        &[],
    )?;
    c.program()?.said("note freed at", START)?;
    python
        .program()?
        .said("note freed at", Duration::from_secs(90))?;
    let freed = wall_us();
    live.until(&python, freed + 30 * SECOND)?;
    for (life, what, least) in [(&c, "C", C_BYTES), (&python, "Python", PYTHON_BYTES)] {
        let last = live.samples(life)?.pop().context("no sample")?;
        let kept = bytes(&last, "anon");
        println!("{what} freed it and still has {} MiB", kept / M);
        ensure!(
            kept > least / 4 * 3,
            "{what} has {kept} bytes left of {least}: malloc gave them back, so this shows nothing"
        );
        live.ensure_no_leak(life, what)?;
    }
    Ok(Outcome::Passed)
}

/// 200 MiB read and 100 MiB written to a tmpfs, both at a steady pace.
fn page_cache_and_tmpfs() -> Result<Outcome> {
    let reset = || std::fs::write("/sys/block/zram0/reset", "1");
    reset().context("reset zram0: is the module loaded?")?;
    std::fs::write("/sys/block/zram0/disksize", (200 * M).to_string()).context("size zram0")?;
    let mut reader = Life::new("reader", Some(256 * M), false)?;
    let mut writer = Life::new("writer", Some(256 * M), false)?;
    let mut live = Live::start(&[&reader, &writer])?;
    let paced = |what: &str| {
        format!(
            "sleep 10; i=0; while [ $i -lt 100 ]; do {what}; i=$((i+1)); usleep 300000; done 2>/dev/null; echo done; sleep 1000"
        )
    };
    // A block device's pages are dropped when nobody has it open any more.
    let read = "exec 3< /dev/zram0; ".to_owned()
        + &paced("dd if=/dev/zram0 of=/dev/null bs=1M count=2 skip=$((i*2))");
    let write = paced("dd if=/dev/zero of=/dev/shm/vm-verdict-$i bs=1M count=1");
    reader.run(&["/bin/sh", "-c", &read], &[])?;
    writer.run(&["/bin/sh", "-c", &write], &[])?;
    for life in [&mut reader, &mut writer] {
        life.program()?.said("done", Duration::from_secs(110))?;
    }
    live.until(&reader, wall_us() + 5 * SECOND)?;
    for (life, field, least) in [(&reader, "file", 180 * M), (&writer, "shmem", 95 * M)] {
        let last = live.samples(life)?.pop().context("no sample")?;
        let had = bytes(&last, field);
        println!("{field} {} MiB", had / M);
        ensure!(had > least, "{field} is {had} bytes only: {last}");
        live.ensure_no_leak(life, field)?;
    }
    drop((reader, writer));
    for index in 0..100 {
        std::fs::remove_file(format!("/dev/shm/vm-verdict-{index}"))?;
    }
    reset().context("reset zram0")?;
    Ok(Outcome::Passed)
}
