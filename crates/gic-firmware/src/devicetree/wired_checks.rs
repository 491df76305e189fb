//! Checks the interrupts that nodes raise at the GIC: their triggers, and whether shared and
//! private interrupts are used by the right devices.

use super::gic::version;
use super::interrupt_tree::{CELLS, INTERRUPTS, MAP, WITHOUT_ADDRESS};
use super::specifier::{SPI, describe};
use super::tree::NodeRef;
use crate::finding::{FindingList, Rule};
use crate::gic::GicVersion;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;

/// Trigger flags of a specifier (binding `arm,gic.yaml`).
const TRIGGER: u32 = 0xf;
/// CPU mask of a GICv2's PPI (binding `arm,gic.yaml`).
const CPU_MASK: u32 = 0xff00;
const RISING_EDGE: u32 = 1;
const FALLING_EDGE: u32 = 2;
const LEVEL_HIGH: u32 = 4;
const LEVEL_LOW: u32 = 8;

/// Compatible strings of timers that are a part of each CPU.
const TIMERS: &[&str] = &["arm,armv8-timer", "arm,armv7-timer", "arm,cortex-a15-timer"];
/// Compatible strings of other parts of each CPU, whose interrupts are always private.
const CPU_PARTS: &[&str] =
    &["arm,statistical-profiling-extension-v1", "arm,trace-buffer-extension"];
/// Substrings of the compatible strings of nodes that may use PPIs although they have registers.
/// Samsung's multi-core timer (binding `samsung,exynos4210-mct.yaml`) is called `mct`.
const PRIVATE: &[&str] = &["timer", "twd", "pmu", "-pic", "-mct", "xen"];

/// Use of an interrupt by a node.
#[derive(Clone, Copy)]
pub(super) struct Use<'t, 'a> {
    pub(super) node: NodeRef<'t, 'a>,
    pub(super) property: &'static str,
    pub(super) intid: IntId,
    pub(super) flags: u32,
}

/// Uses of interrupts by enabled nodes, collected for the checks.
#[derive(Default)]
pub(super) struct Uses<'t, 'a>(Vec<Use<'t, 'a>>);

impl<'t, 'a> Uses<'t, 'a> {
    /// Adds a use by an enabled node.
    pub(super) fn add(&mut self, one: Use<'t, 'a>) {
        self.0.push(one);
    }

    /// Checks all uses. `gic` is the controller.
    pub(super) fn check(mut self, gic: NodeRef<'t, 'a>, findings: &mut FindingList) {
        let place = |of: &Use<'_, '_>| (of.node.index(), of.property);
        for uses in self.0.chunk_by(|one, next| place(one) == place(next)) {
            report_kinds(uses, gic, findings);
            cpu_mask(uses, gic, findings);
            for uses in uses.chunk_by(|one, next| one.flags == next.flags) {
                trigger(uses, findings);
            }
        }
        self.0.retain(|one| kind(*one, gic).is_none());
        self.0.sort_by_key(|one| (one.intid, one.node.index()));
        for uses in self.0.chunk_by(|one, next| one.intid == next.intid) {
            let Some((first, others)) = uses.split_first() else { continue };
            for other in others {
                contradiction(*first, *other, findings);
            }
        }
        private_users(&self.0, gic, findings);
    }
}

/// Formats trigger flags as text.
fn words(flags: u32) -> String {
    match flags & TRIGGER {
        0 => String::from("no trigger"),
        RISING_EDGE => String::from("rising edge"),
        FALLING_EDGE => String::from("falling edge"),
        LEVEL_HIGH => String::from("level high"),
        LEVEL_LOW => String::from("level low"),
        _ => String::from("several triggers"),
    }
}

/// Checks the trigger flags of successive specifiers with equal flags in one property. The signals
/// of PPIs are fixed in hardware, so operating systems accept any single trigger for them, and many
/// trees state "level low".
fn trigger(uses: &[Use<'_, '_>], findings: &mut FindingList) {
    let Some(first) = uses.first() else { return };
    // The drivers of these controllers choose the trigger themselves.
    if first.property == MAP && first.node.is_compatible(WITHOUT_ADDRESS) {
        return;
    }
    let flags = first.flags & TRIGGER;
    let is_right = |one: &Use<'_, '_>| {
        let fits_spi = matches!(flags, RISING_EDGE | LEVEL_HIGH);
        fits_spi || (!one.intid.is_shared() && flags.is_power_of_two())
    };
    let mut wrong = uses.iter().filter(|one| !is_right(one));
    let Some(one) = wrong.next() else { return };
    let others = match wrong.count() {
        0 => String::new(),
        count => format!(" and of {count} more"),
    };
    let (name, stated) = (describe(one.intid), words(flags));
    let (rule, advice) = match flags {
        0 => (Rule::MissingTrigger, ""),
        _ => (Rule::InterruptTrigger, ": a GIC takes 1 (rising edge) or 4 (level high)"),
    };
    let message = format!("the flags of {name}{others} are {:#x}, {stated}{advice}", one.flags);
    findings.add(rule, one.node.origin(one.property), message);
}

/// Reports CPU masks in the specifiers of one property. Operating systems ignore them.
fn cpu_mask(uses: &[Use<'_, '_>], gic: NodeRef<'_, '_>, findings: &mut FindingList) {
    let mut masked = uses.iter().filter(|one| one.flags & CPU_MASK != 0);
    let Some(one) = masked.next().filter(|_| version(gic) == Some(GicVersion::V3)) else { return };
    let others = match masked.count() {
        0 => String::new(),
        count => format!(" and of {count} more"),
    };
    let (name, flags) = (describe(one.intid), one.flags);
    let message = format!("the flags of {name}{others} are {flags:#x}: a GICv3 has no CPU mask");
    findings.add(Rule::CpuMask, one.node.origin(one.property), message);
}

/// Compares two users of an SPI. The two are the same device if one is below the other.
fn contradiction(one: Use<'_, '_>, other: Use<'_, '_>, findings: &mut FindingList) {
    let (flags, others) = (one.flags & TRIGGER, other.flags & TRIGGER);
    let is_related = |below: NodeRef<'_, '_>, above: NodeRef<'_, '_>| {
        below.upwards().any(|node| node.index() == above.index())
    };
    let is_valid = |flags| matches!(flags, RISING_EDGE | LEVEL_HIGH);
    if !one.intid.is_shared() || flags == others || !is_valid(flags) || !is_valid(others) {
        return;
    }
    if is_related(one.node, other.node) || is_related(other.node, one.node) {
        return;
    }
    let message = format!(
        "{} is {} here, but {} for {}",
        describe(other.intid),
        words(others),
        words(flags),
        one.node.path()
    );
    findings.add(Rule::ContradictingTriggers, other.node.origin(other.property), message);
}

/// Reports the interrupts of one property that have the wrong kind.
fn report_kinds(uses: &[Use<'_, '_>], gic: NodeRef<'_, '_>, findings: &mut FindingList) {
    let mut faults = uses.iter().filter_map(|one| Some((one, kind(*one, gic)?)));
    let Some((one, message)) = faults.next() else { return };
    let others = match faults.count() {
        0 => String::new(),
        count => format!("; so are {count} more interrupts of the node"),
    };
    let message = format!("{message}{others}");
    findings.add(Rule::InterruptKind, one.node.origin(one.property), message);
}

/// Returns a message if a part of each CPU has a shared interrupt, or if a single device has a
/// private one.
fn kind(one: Use<'_, '_>, gic: NodeRef<'_, '_>) -> Option<String> {
    let (node, name) = (one.node, describe(one.intid));
    let is_gic = node.index() == gic.index() && one.property == INTERRUPTS;
    let part = if is_gic {
        Some("the GIC's maintenance interrupt")
    } else if node.is_compatible(TIMERS) {
        Some("a CPU's timer")
    } else if node.is_compatible(CPU_PARTS) {
        Some("a part of each CPU")
    } else {
        None
    };
    match part {
        Some(part) if one.intid.is_shared() => {
            let number = one.intid.get() - SPI.first;
            // The number may be that of a PPI, or an INTID.
            let meant = match number {
                0..16 => format!(": was PPI {number} meant (type 1)?"),
                16..32 => format!(": was INTID {number} meant, PPI {}?", number - 16),
                _ => String::new(),
            };
            Some(format!("{name} is shared by all CPUs, but {part} is private{meant}"))
        }
        None if !one.intid.is_shared() && is_single(one) => {
            Some(format!("{name} exists once for each CPU, but the node is a single device"))
        }
        _ => None,
    }
}

/// Returns `true` if the user is a device that the CPUs share.
fn is_single(one: Use<'_, '_>) -> bool {
    let mut names = one.node.strings("compatible");
    let is_private = names.any(|name| PRIVATE.iter().any(|part| name.contains(part)));
    one.property == MAP || (one.node.has("reg") && !one.node.has(CELLS) && !is_private)
}

/// Reports private interrupts that timers, PMUs and the GIC use more than once. Several PMUs may
/// use the same interrupt.
fn private_users<'t, 'a>(uses: &[Use<'t, 'a>], gic: NodeRef<'t, 'a>, findings: &mut FindingList) {
    let mut known: BTreeMap<IntId, NodeRef<'t, 'a>> = BTreeMap::new();
    for one in uses.iter().filter(|one| !one.intid.is_shared() && one.property != MAP) {
        let is_gic = one.node.index() == gic.index();
        let is_pmu = one.node.strings("compatible").any(|name| name.contains("pmu"));
        if !is_gic && !is_pmu && !one.node.is_compatible(TIMERS) {
            continue;
        }
        let Some(other) = known.insert(one.intid, one.node) else { continue };
        let both_pmus = is_pmu && other.strings("compatible").any(|name| name.contains("pmu"));
        if !both_pmus {
            let message =
                format!("{} is also an interrupt of {}", describe(one.intid), other.path());
            findings.add(Rule::SharedPrivateInterrupt, one.node.origin(one.property), message);
        }
    }
}
