//! `doorbell snapshot diff`: lists the differences between two states, object by object.

use super::cli::SnapshotDiffArgs;
use super::file;
use super::machine::Machine;
use crate::exit::Outcome;
use crate::print;
use crate::wording::counted;
use anyhow::Result;
use gic_arch::gicd::Irouter;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use vgic::saved_state::{CpuState, DeviceState, InterruptState, ItsState, Property};

/// Difference in one field. A value is `None` if the state lacks the object or field, or if a wired
/// interrupt's field has its reset value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct StateDifference {
    /// Name of the object.
    pub(super) object: String,
    /// Name of the field. The field of a register has the register's name.
    pub(super) field: &'static str,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// Prints the differences between two snapshots.
pub(super) fn diff(args: &SnapshotDiffArgs) -> Result<Outcome> {
    let (before, after) = (file::read(&args.before)?, file::read(&args.after)?);
    let differences = differences(&before, &after);
    print::rows(args.output.json, &differences, |out| {
        for StateDifference { object, field, before, after } in &differences {
            let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".into());
            writeln!(out, "{object}: {field} {} → {}", word(before), word(after))?;
        }
        match differences.len() {
            0 => writeln!(out, "no differences"),
            count => writeln!(out, "{}", counted(count, "difference")),
        }
    })?;
    Ok(if differences.is_empty() { Outcome::Good } else { Outcome::Findings })
}

/// Compares two machines. CPUs are identified by affinity, ITSes by address, and events by DeviceID
/// and EventID.
pub(super) fn differences(before: &Machine, after: &Machine) -> Vec<StateDifference> {
    let (before, after) = (Facts::of(before, after).0, Facts::of(after, before).0);
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    differing
        .map(|key| StateDifference {
            object: key.1.clone(),
            field: key.2,
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        })
        .collect()
}

/// Sort key of an object: its kind, then keys within the kind.
type Order = (u8, u64, u64, u64);

/// Values of a state's fields, by object and field.
#[derive(Default)]
struct Facts(BTreeMap<(Order, String, &'static str), String>);

impl Facts {
    /// Lists the fields of a machine, apart from devices that do not differ from those of `other`,
    /// because a machine may have a million events.
    fn of(machine: &Machine, other: &Machine) -> Self {
        let mut facts = Self::default();
        let distributor = &machine.state.distributor;
        let object = || ((0, 0, 0, 0), "the distributor".to_owned());
        facts.add(object(), "GICD_CTLR", hex(distributor.ctlr));
        facts.add(object(), "GICD_TYPER", hex(distributor.typer));
        facts.add(object(), "GICD_IIDR", hex(distributor.iidr));
        // A snapshot of KVM has no shape.
        let shape = if other.shape.is_empty() { &[] } else { machine.shape.as_slice() };
        for Property { name, of, value, .. } in shape {
            let object = ((0, *name as u64, *of, 1), format!("{name:?} of {of:#x}"));
            facts.add(object, "value", hex(*value));
        }
        for interrupt in &distributor.interrupts {
            let order = (1, interrupt.intid.get().into(), 0, 0);
            facts.interrupt(&(order, interrupt.intid.to_string()), interrupt);
        }
        machine.state.cpus.iter().for_each(|cpu| facts.cpu(machine, cpu));
        for its in &machine.state.its {
            let twin = other.state.its.iter().find(|of| of.base == its.base);
            facts.its(its, twin.map_or(&[], |of| &of.devices));
        }
        facts
    }

    fn add(&mut self, (order, object): (Order, String), field: &'static str, value: String) {
        self.0.insert((order, object, field), value);
    }

    fn cpu(&mut self, machine: &Machine, cpu: &CpuState) {
        let key: u64 = cpu.affinity.packed().into();
        let object = || ((2, key, 0, 0), format!("CPU {}", cpu.affinity));
        let (redistributor, interface) = (&cpu.redistributor, &cpu.interface);
        if let Some(stopped) = machine.stopped.get(&cpu.affinity) {
            self.add(object(), "stopped", stopped.to_string());
        }
        for (field, value) in [
            ("GICR_CTLR", redistributor.ctlr.into()),
            ("GICR_TYPER", redistributor.typer),
            ("GICR_WAKER", redistributor.waker.into()),
            ("GICR_PROPBASER", redistributor.propbaser),
            ("GICR_PENDBASER", redistributor.pendbaser),
            ("ICC_CTLR_EL1", interface.ctlr),
            ("ICC_PMR_EL1", interface.pmr.into()),
            ("ICC_BPR0_EL1", interface.bpr0.into()),
            ("ICC_BPR1_EL1", interface.bpr1.into()),
            ("ICC_IGRPEN0_EL1", interface.igrpen0.into()),
            ("ICC_IGRPEN1_EL1", interface.igrpen1.into()),
        ] {
            self.add(object(), field, hex(value));
        }
        self.add(object(), "ICC_AP0R<n>_EL1", format!("{:x?}", interface.ap0r));
        self.add(object(), "ICC_AP1R<n>_EL1", format!("{:x?}", interface.ap1r));
        for interrupt in &redistributor.interrupts {
            let order = (3, key, interrupt.intid.get().into(), 0);
            let name = format!("CPU {}, {}", cpu.affinity, interrupt.intid);
            self.interrupt(&(order, name), interrupt);
        }
        for own in &redistributor.lpis {
            let order = (4, key, own.intid.get().into(), 0);
            let object = (order, format!("CPU {}, {}", cpu.affinity, own.intid));
            self.add(object, "pending", "without an event".to_owned());
        }
    }

    /// Adds a wired interrupt. Omits fields that have their reset value, because a state may omit
    /// an interrupt in its reset state.
    fn interrupt(&mut self, object: &(Order, String), interrupt: &InterruptState) {
        let mut set = |field, value: String, reset: bool| {
            if !reset {
                self.add(object.clone(), field, value);
            }
        };
        for (field, is_set) in [
            ("Group 1", interrupt.group1),
            ("enabled", interrupt.enabled),
            ("edge", interrupt.edge && interrupt.intid.is_shared()),
            ("pending latch", interrupt.latch),
            ("line", interrupt.line),
            ("message", interrupt.message),
            ("active", interrupt.active),
        ] {
            set(field, "1".to_owned(), !is_set);
        }
        set("priority", hex(interrupt.priority), interrupt.priority == 0);
        let route = Irouter::from(interrupt.route);
        let named = if route.any_participating() {
            "any".to_owned()
        } else {
            format!("CPU {}", route.affinity())
        };
        set("route", named, interrupt.route == 0);
    }

    fn its(&mut self, its: &ItsState, others: &[DeviceState]) {
        let base = its.base;
        let object = || ((5, base, 0, 0), format!("its@{base:x}"));
        for (field, value) in [
            ("GITS_CTLR", its.ctlr.into()),
            ("GITS_IIDR", its.iidr.into()),
            ("GITS_TYPER", its.typer),
            ("GITS_CBASER", its.cbaser),
            ("GITS_CWRITER", its.cwriter),
            ("GITS_CREADR", its.creadr),
            ("GITS_BASER0", its.baser[0]),
            ("GITS_BASER1", its.baser[1]),
        ] {
            self.add(object(), field, hex(value));
        }
        for mapped in &its.collections {
            let number = mapped.collection.get();
            let object =
                ((6, base, number.into(), 0), format!("its@{base:x}, collection {number}"));
            self.add(object, "target", format!("CPU {}", mapped.target));
        }
        let differs = |device: &&DeviceState| {
            let at = others.binary_search_by_key(&device.device, |other| other.device);
            at.ok().and_then(|at| others.get(at)) != Some(device)
        };
        for device in its.devices.iter().filter(differs) {
            let id = device.device.get();
            let name = format!("its@{base:x}, device {id:#x}");
            let object = || ((7, base, id.into(), 0), name.clone());
            self.add(object(), "EventID bits", device.event_bits.to_string());
            self.add(object(), "translation table", hex(device.itt));
            for event in &device.events {
                let number = event.event.get();
                let order = (7, base, id.into(), 1 + u64::from(number));
                let object = || (order, format!("{name} event {number:#x}"));
                self.add(object(), "INTID", event.intid.get().to_string());
                self.add(object(), "collection", event.collection.get().to_string());
                self.add(object(), "pending", event.pending.to_string());
                if let Some(byte) = event.configuration {
                    self.add(object(), "configuration", hex(byte));
                }
            }
        }
    }
}

fn hex(value: impl Into<u64>) -> String {
    format!("{:#x}", value.into())
}
