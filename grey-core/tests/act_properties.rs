//! Acting in a model of the machine: whatever is killed, whenever, whatever others write: in the end every file holds
//! what it held at the start, or what somebody else wrote to it last.
#![allow(clippy::unwrap_used, reason = "test code outside a #[test] function")]

use std::collections::{BTreeMap, BTreeSet};

use grey_core::act::engine::Actor;
use grey_core::act::{
    Change, Close, Engine, Fault, Knob, KnobFile, Ledger, Record, Set, Slot, Table, Text, Value,
    Verdict, World, decode_all, encode, undo,
};
use proptest::prelude::*;

/// The machine: files, the journal's bytes on disk, and the guard.
#[derive(Clone, Debug)]
struct Machine {
    files: BTreeMap<Knob, Value>,
    /// Last values written by others.
    foreign: BTreeMap<Knob, Value>,
    gone: BTreeSet<Knob>,
    disk: Vec<u8>,
    guard: Option<Guard>,
    /// Calls until the controller dies; `None` for never.
    life: Option<u32>,
    /// Calls until the controller is stopped, and the guard takes it for hung before it goes on.
    stop: Option<u32>,
    /// What others write, by the number of the call before which they do.
    intruders: BTreeMap<u32, (Knob, Value)>,
    calls: u32,
    /// Failures of the world by call: the file system's, the guard's.
    faults: BTreeMap<u32, Fault>,
}

#[derive(Clone, Debug)]
struct Guard {
    table: Table<u16, 64>,
    knobs: Vec<Knob>,
    revoked: bool,
}

impl Guard {
    fn new() -> Guard {
        Guard {
            table: Table::new(),
            knobs: Vec::new(),
            revoked: false,
        }
    }
}

fn text(value: &Value) -> Text {
    Text::new(value.as_str().as_bytes()).unwrap()
}

impl Machine {
    fn new() -> Machine {
        let mut files = BTreeMap::new();
        for knob in knobs() {
            let value = match knob.file {
                KnobFile::KsmAdvisorMode => Value::new("none").unwrap(),
                KnobFile::KsmPagesToScan => Value::number(100),
                _ => Value::limit(None, 4096),
            };
            files.insert(knob, value);
        }
        Machine {
            files,
            foreign: BTreeMap::new(),
            gone: BTreeSet::new(),
            disk: Vec::new(),
            guard: None,
            life: None,
            stop: None,
            intruders: BTreeMap::new(),
            calls: 0,
            faults: BTreeMap::new(),
        }
    }

    /// One system call of the controller begins.
    fn call(&mut self) -> Result<(), Fault> {
        self.calls += 1;
        if let Some((knob, value)) = self.intruders.remove(&self.calls) {
            self.intrude(knob, value);
        }
        if let Some(life) = &mut self.life {
            if *life == 0 {
                return Err(dead());
            }
            *life -= 1;
        }
        if let Some(stop) = &mut self.stop {
            if *stop == 0 {
                self.stop = None;
                self.guard_acts(true);
            } else {
                *stop -= 1;
            }
        }
        match self.faults.remove(&self.calls) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    fn intrude(&mut self, knob: Knob, value: Value) {
        if self.takes(&knob) && !self.gone.contains(&knob) {
            self.foreign.insert(knob.clone(), value.clone());
            self.put(&knob, value);
        }
    }

    /// The kernel refuses pages_to_scan while the advisor is on.
    fn takes(&self, knob: &Knob) -> bool {
        let advisor = &self.files[&Knob::machine(KnobFile::KsmAdvisorMode)];
        knob.file != KnobFile::KsmPagesToScan || advisor.as_str() == "none"
    }

    fn put(&mut self, knob: &Knob, value: Value) {
        // Switching the advisor sets the pages to scan.
        if knob.file == KnobFile::KsmAdvisorMode && self.files[knob] != value {
            let pages = if value.as_str() == "none" { 100 } else { 500 };
            self.files.insert(
                Knob::machine(KnobFile::KsmPagesToScan),
                Value::number(pages),
            );
        }
        self.files.insert(knob.clone(), value);
    }

    fn content(&self, knob: &Knob) -> Result<Value, Fault> {
        if self.gone.contains(knob) {
            return Err(Fault::Gone);
        }
        Ok(self.files[knob].clone())
    }

    /// The controller is dead or hung: the guard puts everything back. It notes that, and forgets, only once the
    /// controller is dead: a hung one may go on and make the write it was about to make.
    fn guard_acts(&mut self, hung: bool) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        let slots: Vec<Slot<u16>> = guard.table.iter().rev().copied().collect();
        for slot in slots {
            let knob = guard.knobs[usize::from(slot.file)].clone();
            let how = match self.content(&knob) {
                Err(_) => Close::Gone,
                Ok(current) => match undo(
                    current.as_str().as_bytes(),
                    slot.old.bytes(),
                    slot.new.bytes(),
                    slot.leaves.as_ref().map(Text::bytes),
                ) {
                    Verdict::Foreign => Close::Foreign,
                    Verdict::Back => Close::Back,
                    Verdict::Restore => {
                        let old = std::str::from_utf8(slot.old.bytes()).unwrap();
                        self.put(&knob, Value::new(old).unwrap());
                        Close::Restored
                    }
                },
            };
            if !hung {
                self.note(&Record::Closed {
                    id: slot.id,
                    step: slot.step,
                    how,
                });
            }
        }
        if hung {
            guard.revoked = true;
            self.guard = Some(guard);
        }
    }

    fn note(&mut self, record: &Record) {
        if self.disk.last().is_some_and(|byte| *byte != b'\n') {
            self.disk.push(b'\n');
        }
        self.disk.extend(encode(record));
    }
}

fn dead() -> Fault {
    Fault::Other("dead".to_owned())
}

/// The controller's way to the machine. What it is lent is given back when it dies.
struct Lent<'a> {
    machine: &'a mut Machine,
    /// Bytes of a record that reach the disk when the controller dies while it writes it.
    torn: usize,
}

impl World for Lent<'_> {
    fn read(&mut self, knob: &Knob) -> Result<Value, Fault> {
        self.machine.call()?;
        self.machine.content(knob)
    }

    fn write(&mut self, knob: &Knob, expected: &Value, value: &Value) -> Result<(), Fault> {
        if knob.file == KnobFile::KsmAdvisorMode {
            // A write to the pages between the last look at them and the advisor's switching is lost to the kernel.
            let (now, pages) = (self.machine.calls + 1, KnobFile::KsmPagesToScan);
            let lost = |_: &u32, intruder: &mut (Knob, Value)| intruder.0.file == pages;
            let _ = self.machine.intruders.extract_if(now..=now, lost).count();
        }
        self.machine.call()?;
        if self.machine.content(knob)? != *expected {
            return Err(Fault::Changed);
        }
        if !self.machine.takes(knob) {
            return Err(Fault::Invalid("the advisor is on".to_owned()));
        }
        self.machine.put(knob, value.clone());
        // It may die, fail or be stopped after the write too.
        self.machine.call()
    }

    fn append(&mut self, record: &Record) -> Result<(), Fault> {
        let alive = self.machine.call();
        if self.machine.disk.last().is_some_and(|byte| *byte != b'\n') {
            self.machine.disk.push(b'\n');
        }
        let line = encode(record);
        match alive {
            Ok(()) => {
                self.machine.disk.extend(line);
                self.machine.call()
            }
            Err(fault) => {
                // A dying or failing write leaves a part.
                if self.machine.life != Some(0) || self.torn > 0 {
                    let part = self.torn.min(line.len());
                    self.machine.disk.extend(&line[..part]);
                }
                self.torn = 0;
                Err(fault)
            }
        }
    }

    fn arm(&mut self, id: u64, step: u32, change: &Change<'_>) -> Result<(), Fault> {
        self.machine.call()?;
        let guard = self.machine.guard.as_mut().ok_or(Fault::GuardLost)?;
        if guard.revoked {
            return Err(Fault::Revoked);
        }
        guard.knobs.push(change.knob.clone());
        let armed = guard.table.arm(Slot {
            id,
            step,
            until: u64::MAX,
            old: text(change.old),
            new: text(change.new),
            leaves: change.leaves.map(text),
            file: guard.knobs.len() as u16 - 1,
        });
        if armed { Ok(()) } else { Err(Fault::GuardLost) }
    }

    fn release(&mut self, id: u64, step: Option<u32>) -> Result<(), Fault> {
        self.machine.call()?;
        if let Some(guard) = &mut self.machine.guard {
            guard.table.release(id, step, |_| ());
            // What it has undone cannot be kept.
            if guard.revoked {
                return Err(Fault::Revoked);
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Fault> {
        self.machine.call()?;
        match &self.machine.guard {
            None => Err(Fault::GuardLost),
            Some(guard) if guard.revoked => Err(Fault::Revoked),
            Some(_) => Ok(()),
        }
    }
}

fn knobs() -> Vec<Knob> {
    vec![
        Knob::cgroup("/a", 1, KnobFile::MemoryHigh),
        Knob::cgroup("/a", 1, KnobFile::MemoryMax),
        Knob::cgroup("/b", 2, KnobFile::MemoryHigh),
        Knob::machine(KnobFile::KsmPagesToScan),
        Knob::machine(KnobFile::KsmAdvisorMode),
    ]
}

/// What a controller is told to do.
#[derive(Clone, Debug)]
enum Order {
    /// An action over these knobs (the advisor brings its pages with it); kept, undone, or left open.
    Act(Vec<(usize, u64)>, After),
    /// Undo of a kept action by its number.
    Undo(usize),
    UndoAll,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Keep,
    Undo,
    Leave,
}

/// One run of a controller, and how it ends.
#[derive(Clone, Debug)]
struct Run {
    orders: Vec<Order>,
    life: Option<u32>,
    stop: Option<u32>,
    guard_dies_too: bool,
    torn: usize,
    intruders: Vec<(u32, usize)>,
    faults: Vec<(u32, Fault)>,
    removed: Option<usize>,
}

fn run(machine: &mut Machine, run: &Run, serial: &mut u64) {
    let (records, _) = decode_all(&machine.disk);
    machine.calls = 0;
    machine.life = run.life;
    machine.stop = run.stop;
    machine.faults = run.faults.iter().cloned().collect();
    machine.intruders = run
        .intruders
        .iter()
        .map(|(call, knob)| {
            *serial += 1;
            let value = match knobs()[*knob].file {
                // Values nobody else writes, or nobody could tell whose they are.
                KnobFile::KsmAdvisorMode => Value::new(&format!("mode{serial}")).unwrap(),
                _ => Value::number(1_000_000 + *serial),
            };
            (*call, (knobs()[*knob].clone(), value))
        })
        .collect();
    machine.guard = Some(Guard::new());
    let actor = Actor {
        boot: "boot".to_owned(),
        pid: 1,
    };
    let lent = Lent {
        machine,
        torn: run.torn,
    };
    let mut engine = Engine::new(lent, Ledger::of(records), actor);
    // What an earlier one left behind comes first, as in a real session.
    engine.undo_all(false, false);
    for order in &run.orders {
        match order {
            Order::Act(changes, after) => act(&mut engine, changes, *after, serial),
            Order::Undo(nth) => {
                let kept: Vec<u64> = engine
                    .ledger()
                    .actions()
                    .filter(|action| action.is_open())
                    .map(|action| action.id)
                    .collect();
                if let Some(id) = kept.get(*nth) {
                    engine.undo(*id, false);
                }
            }
            Order::UndoAll => {
                engine.undo_all(true, false);
            }
        }
    }
    drop(engine);
    machine.intruders.clear();
    machine.faults.clear();
    if run.guard_dies_too {
        machine.guard = None;
    }
    machine.guard_acts(false);
    machine.guard = None;
    if let Some(knob) = run.removed {
        let path = knobs()[knob].cgroup_path().map(str::to_owned);
        if path.is_some() {
            machine.gone.extend(
                knobs()
                    .into_iter()
                    .filter(|knob| knob.cgroup_path().map(str::to_owned) == path),
            );
        }
    }
}

fn act(engine: &mut Engine<Lent<'_>>, changes: &[(usize, u64)], after: After, serial: &mut u64) {
    let Ok(id) = engine.begin(1, "test", "/a", "a test") else {
        return;
    };
    let mut good = true;
    for (knob, value) in changes {
        let knob = knobs()[*knob].clone();
        *serial += 1;
        let result = match knob.file {
            KnobFile::KsmAdvisorMode => {
                let pages = Knob::machine(KnobFile::KsmPagesToScan);
                // Once it is on, what its pages are is the kernel's affair.
                let first = match (engine.world.read(&knob), engine.world.read(&pages)) {
                    (Ok(mode), _) if mode.as_str() != "none" => continue,
                    (Ok(_), Ok(now)) => {
                        engine.set_before(id, &pages, &now, Some(&Value::number(100)))
                    }
                    (Err(fault), _) | (_, Err(fault)) => {
                        Err(grey_core::act::ActError::Read { knob: pages, fault })
                    }
                };
                first.and_then(|_| engine.set(id, &knob, &Value::new("scan-time").unwrap()))
            }
            _ => engine.set(id, &knob, &Value::number(*value * 4096 + *serial)),
        };
        if !matches!(result, Ok(Set::Changed { .. } | Set::Unchanged)) {
            good = false;
            break;
        }
    }
    match after {
        After::Keep if good => {
            if engine.keep(id).is_err() {
                engine.undo(id, false);
            }
        }
        After::Leave if good => {}
        _ => {
            engine.undo(id, false);
        }
    }
}

/// `rollback` alone, nobody else alive.
fn rollback(machine: &mut Machine) {
    let (records, _) = decode_all(&machine.disk);
    machine.guard = None;
    machine.life = None;
    let actor = Actor {
        boot: "boot".to_owned(),
        pid: 2,
    };
    let lent = Lent { machine, torn: 0 };
    let mut engine = Engine::new(lent, Ledger::of(records), actor);
    let undone = engine.undo_all(true, false);
    assert!(undone.failed.is_empty(), "{undone:?}");
    assert!(engine.ledger().actions().all(|action| !action.is_open()));
}

fn holds(machine: &Machine, start: &Machine) {
    for (knob, value) in &start.files {
        if machine.gone.contains(knob) {
            continue;
        }
        // The kernel's own change by somebody else's switching of the advisor is not ours to judge.
        let advisor = Knob::machine(KnobFile::KsmAdvisorMode);
        if knob.file == KnobFile::KsmPagesToScan && machine.foreign.contains_key(&advisor) {
            continue;
        }
        let expected = machine.foreign.get(knob).unwrap_or(value);
        assert_eq!(&machine.files[knob], expected, "{knob}\n{machine:#?}");
    }
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Full),
        Just(Fault::Busy),
        Just(Fault::Interrupted),
        Just(Fault::Other("I/O error".to_owned())),
        Just(Fault::TimedOut { stuck: false }),
    ]
}

fn orders() -> impl Strategy<Value = Order> {
    let after = prop_oneof![
        2 => Just(After::Keep),
        1 => Just(After::Undo),
        2 => Just(After::Leave)
    ];
    let changes = prop::collection::vec(
        (
            prop_oneof![4 => 0..3_usize, 1 => Just(4_usize)],
            1..1000_u64,
        ),
        1..4,
    );
    prop_oneof![
        6 => (changes, after).prop_map(|(changes, after)| Order::Act(changes, after)),
        1 => (0..3_usize).prop_map(Order::Undo),
        1 => Just(Order::UndoAll),
    ]
}

fn runs() -> impl Strategy<Value = Run> {
    (
        prop::collection::vec(orders(), 1..4),
        prop::option::weighted(0.7, 0..60_u32),
        prop::option::weighted(0.2, 0..60_u32),
        any::<bool>(),
        0..200_usize,
        prop::collection::vec((1..60_u32, 0..4_usize), 0..3),
        prop::collection::vec((1..60_u32, faults()), 0..2),
        prop::option::weighted(0.05, 0..3_usize),
    )
        .prop_map(
            |(orders, life, stop, guard_dies_too, torn, intruders, faults, removed)| Run {
                orders,
                life,
                stop,
                guard_dies_too,
                torn,
                intruders,
                faults,
                removed,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_end_is_the_start_plus_what_others_wrote(
        sequence in prop::collection::vec(runs(), 1..4)
    ) {
        let start = Machine::new();
        let mut machine = start.clone();
        let mut serial = 0;
        for one in &sequence {
            run(&mut machine, one, &mut serial);
        }
        rollback(&mut machine);
        holds(&machine, &start);
        // And again: there is nothing left to do.
        let before = machine.files.clone();
        rollback(&mut machine);
        prop_assert_eq!(before, machine.files);
    }
}

/// One action over three files, ended after each of its calls: the guard alone puts everything back.
#[test]
fn at_every_point_of_an_action_the_guard_alone_puts_everything_back() {
    let mut serial = 0;
    let whole = Run {
        orders: vec![Order::Act(vec![(0, 5), (1, 6), (4, 7)], After::Leave)],
        life: None,
        stop: None,
        guard_dies_too: false,
        torn: 0,
        intruders: Vec::new(),
        faults: Vec::new(),
        removed: None,
    };
    let mut machine = Machine::new();
    run(&mut machine, &whole, &mut serial);
    let calls = machine.calls;
    assert!(calls > 20, "{calls}");
    for life in 0..=calls {
        let start = Machine::new();
        let mut machine = start.clone();
        run(
            &mut machine,
            &Run {
                life: Some(life),
                ..whole.clone()
            },
            &mut serial,
        );
        assert_eq!(machine.files, start.files, "killed after {life} calls");
        // Hung there instead, taken over by the guard, then going on.
        let mut machine = start.clone();
        run(
            &mut machine,
            &Run {
                stop: Some(life),
                ..whole.clone()
            },
            &mut serial,
        );
        assert_eq!(machine.files, start.files, "stopped after {life} calls");
        // And without the guard, by the journal.
        let mut machine = start.clone();
        let alone = Run {
            life: Some(life),
            guard_dies_too: true,
            ..whole.clone()
        };
        run(&mut machine, &alone, &mut serial);
        rollback(&mut machine);
        assert_eq!(machine.files, start.files, "both killed after {life} calls");
    }
}

/// Two actions in one life, the older of which comes to a file after the newer one has kept it: found by random sequences on a
/// real machine. Changes are taken back the latest action first, which would leave the newer one's value there.
#[test]
fn an_older_action_leaves_alone_what_a_newer_one_keeps() {
    let start = Machine::new();
    let mut machine = start.clone();
    machine.guard = Some(Guard::new());
    let actor = Actor {
        boot: "boot".to_owned(),
        pid: 1,
    };
    let lent = Lent {
        machine: &mut machine,
        torn: 0,
    };
    let mut engine = Engine::new(lent, Ledger::default(), actor);
    let knob = knobs()[0].clone();
    let older = engine.begin(1, "test", "/a", "a test").unwrap();
    let newer = engine.begin(1, "test", "/a", "a test").unwrap();
    engine.set(newer, &knob, &Value::number(5 * 4096)).unwrap();
    engine.keep(newer).unwrap();
    let refused = engine.set(older, &knob, &Value::number(6 * 4096));
    assert!(
        matches!(&refused, Err(grey_core::act::ActError::Held { id, .. }) if *id == newer),
        "{refused:?}"
    );
    // Not so the other way round.
    let newest = engine.begin(1, "test", "/a", "a test").unwrap();
    engine.set(newest, &knob, &Value::number(7 * 4096)).unwrap();
    drop(engine);
    rollback(&mut machine);
    holds(&machine, &start);
}
