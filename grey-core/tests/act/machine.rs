//! A model of the machine: files, the journal on disk, and the guard, which can fail at any call.

use std::collections::{BTreeMap, BTreeSet};

use grey_core::act::{
    Change, Close, Fault, Knob, KnobFile, Record, Slot, Table, Text, Value, Verdict, World, encode,
    undo,
};

/// The machine: files, the journal's bytes on disk, and the guard.
#[derive(Clone, Debug)]
pub struct Machine {
    pub files: BTreeMap<Knob, Value>,
    /// Last values written by others.
    pub foreign: BTreeMap<Knob, Value>,
    pub gone: BTreeSet<Knob>,
    pub disk: Vec<u8>,
    pub guard: Option<Guard>,
    /// Calls until the controller dies; `None` for never.
    pub life: Option<u32>,
    /// Calls until the controller is stopped, and the guard takes it for hung before it goes on.
    pub stop: Option<u32>,
    /// What others write, by the number of the call before which they do.
    pub intruders: BTreeMap<u32, (Knob, Value)>,
    pub calls: u32,
    /// Failures of the world by call: the file system's, the guard's.
    pub faults: BTreeMap<u32, Fault>,
}

#[derive(Clone, Debug)]
pub struct Guard {
    pub table: Table<u16, 64>,
    pub knobs: Vec<Knob>,
    pub revoked: bool,
}

impl Guard {
    pub fn new() -> Guard {
        Guard {
            table: Table::new(),
            knobs: Vec::new(),
            revoked: false,
        }
    }
}

pub fn text(value: &Value) -> Text {
    Text::new(value.as_str().as_bytes()).unwrap()
}

impl Machine {
    pub fn new() -> Machine {
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
    pub fn call(&mut self) -> Result<(), Fault> {
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

    pub fn intrude(&mut self, knob: Knob, value: Value) {
        if self.takes(&knob) && !self.gone.contains(&knob) {
            self.foreign.insert(knob.clone(), value.clone());
            self.put(&knob, value);
        }
    }

    /// The kernel refuses pages_to_scan while the advisor is on.
    pub fn takes(&self, knob: &Knob) -> bool {
        let advisor = &self.files[&Knob::machine(KnobFile::KsmAdvisorMode)];
        knob.file != KnobFile::KsmPagesToScan || advisor.as_str() == "none"
    }

    pub fn put(&mut self, knob: &Knob, value: Value) {
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

    pub fn content(&self, knob: &Knob) -> Result<Value, Fault> {
        if self.gone.contains(knob) {
            return Err(Fault::Gone);
        }
        Ok(self.files[knob].clone())
    }

    /// The controller is dead or hung: the guard puts everything back. It notes that, and forgets, only once the
    /// controller is dead: a hung one may go on and make the write it was about to make.
    pub fn guard_acts(&mut self, hung: bool) {
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

    pub fn note(&mut self, record: &Record) {
        if self.disk.last().is_some_and(|byte| *byte != b'\n') {
            self.disk.push(b'\n');
        }
        self.disk.extend(encode(record));
    }
}

pub fn dead() -> Fault {
    Fault::Other("dead".to_owned())
}

/// The controller's way to the machine. What it is lent is given back when it dies.
pub struct Lent<'a> {
    pub machine: &'a mut Machine,
    /// Bytes of a record that reach the disk when the controller dies while it writes it.
    pub torn: usize,
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

pub fn knobs() -> Vec<Knob> {
    vec![
        Knob::cgroup("/a", 1, KnobFile::MemoryHigh),
        Knob::cgroup("/a", 1, KnobFile::MemoryMax),
        Knob::cgroup("/b", 2, KnobFile::MemoryHigh),
        Knob::machine(KnobFile::KsmPagesToScan),
        Knob::machine(KnobFile::KsmAdvisorMode),
    ]
}
