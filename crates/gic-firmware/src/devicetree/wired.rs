//! Finds the users of the GIC's wired interrupts (Devicetree Specification §2.4), and checks the
//! interrupts that nodes raise at the GIC: their triggers, and whether shared and private
//! interrupts are used by the right devices.
//!
//! An interrupt that passes a nexus is attributed to the nexus: each entry of its `interrupt-map`
//! whose parent is the GIC counts as an interrupt of the nexus. So we never look up specifiers in
//! maps, and we read each property only once.

use super::gic::version;
use super::interrupt_tree::{
    CELLS, CONTROLLER, EXTENDED, INTERRUPTS, MAP, SPI, WITHOUT_ADDRESS, cell_count, describe,
    has_type, interrupt, map_entries, parent,
};
use super::references;
use super::tree::{NodeRef, Tree, cells};
use crate::controller::GicVersion;
use crate::description::WiredUser;
use crate::finding::{Fact, FindingList, Rule};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;

/// Reads the users of the wired interrupts of `gic`.
pub(super) fn read<'t, 'a>(
    tree: &'t Tree<'a>,
    gic: NodeRef<'t, 'a>,
    findings: &mut FindingList,
) -> Vec<WiredUser> {
    let gic_cells = gic_cells(gic, findings);
    if let Some(message) = gic_cells.and_then(|cells| wrong_cells(tree, gic, cells)) {
        // Stop here; otherwise, every reference to the GIC would be reported as well.
        findings.add(Rule::MalformedProperty, gic.origin(CELLS), message);
        return Vec::new();
    }
    references::check(tree, findings);
    references::addresses(tree, findings);
    let Some(gic_cells) = gic_cells else { return Vec::new() };
    let mut reader = Reader { tree, gic, gic_cells, uses: Uses::default(), findings };
    let users = tree.nodes().filter_map(|node| reader.user(node)).collect();
    let Reader { uses, findings, .. } = reader;
    uses.check(gic, findings);
    users
}

/// Returns the number of cells in a GIC's interrupt specifiers.
fn gic_cells(gic: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<usize> {
    if gic.status().is_enabled() {
        for (property, purpose) in [
            (CONTROLLER, "without it, operating systems do not use the GIC"),
            (CELLS, "without it, no interrupt of the GIC can be read"),
        ] {
            if !gic.has(property) {
                findings.add(Rule::MissingProperty, gic.origin(property), purpose);
            }
        }
    }
    let cells = cell_count(gic, CELLS);
    let usable = cells.filter(|&cells| cells >= 3);
    if usable.is_none() && gic.has(CELLS) {
        let message = "a GIC's interrupts have at least three cells";
        findings.add(Rule::MalformedProperty, gic.origin(CELLS), message);
    }
    usable
}

/// Returns a message if the interrupts of more users fit another number of cells than fit the
/// number that the GIC states. In that case, the GIC is wrong, not its users.
fn wrong_cells(tree: &Tree<'_>, gic: NodeRef<'_, '_>, stated: usize) -> Option<String> {
    let meant = if stated == 3 { 4 } else { 3 };
    let (mut fit, mut fit_other) = (0, 0);
    for node in tree.nodes().filter(|node| node.status().is_enabled() && !node.has(EXTENDED)) {
        let Some(value) = node.property(INTERRUPTS) else { continue };
        let count = value.len() / size_of::<u32>();
        if parent(tree, node).is_none_or(|parent| parent.index() != gic.index()) {
            continue;
        }
        if count.is_multiple_of(stated) {
            fit += 1;
        } else if count.is_multiple_of(meant) {
            fit_other += 1;
        }
    }
    (fit_other > fit.max(1)).then(|| {
        format!(
            "`{CELLS}` is {stated}, but the `{INTERRUPTS}` of {fit_other} nodes have {meant} cells \
             for each interrupt: none can be read"
        )
    })
}

struct Reader<'t, 'a, 'f> {
    tree: &'t Tree<'a>,
    gic: NodeRef<'t, 'a>,
    gic_cells: usize,
    uses: Uses<'t, 'a>,
    findings: &'f mut FindingList,
}

impl<'t, 'a> Reader<'t, 'a, '_> {
    fn user(&mut self, node: NodeRef<'t, 'a>) -> Option<WiredUser> {
        let mut interrupts = Vec::new();
        if let Some(value) = node.property(EXTENDED) {
            self.extended(node, &cells(value).unwrap_or_default(), &mut interrupts);
        } else if let Some(value) = node.property(INTERRUPTS)
            && parent(self.tree, node).is_some_and(|parent| self.is_gic(parent))
        {
            self.plain(node, &cells(value).unwrap_or_default(), &mut interrupts);
        }
        if let Some(value) = node.property(MAP) {
            self.map(node, &cells(value).unwrap_or_default(), &mut interrupts);
        }
        let user = WiredUser { id: node.id(), status: node.status(), interrupts };
        (!user.interrupts.is_empty()).then_some(user)
    }

    /// Reads `interrupts`. If its length is wrong, states why instead of reading garbage.
    fn plain(&mut self, node: NodeRef<'t, 'a>, cells: &[u32], interrupts: &mut Vec<Fact<IntId>>) {
        if cells.len().is_multiple_of(self.gic_cells) {
            for specifier in cells.chunks(self.gic_cells) {
                self.add(node, INTERRUPTS, specifier, interrupts);
            }
            return;
        }
        if !node.status().is_enabled() {
            return;
        }
        let message = self.begins_with_phandle(cells).unwrap_or_else(|| {
            format!(
                "`interrupts` has {} cells, but an interrupt of {} has {}",
                cells.len(),
                self.gic.path(),
                self.gic_cells
            )
        });
        self.findings.add(Rule::InterruptSpecifier, node.origin(INTERRUPTS), message);
    }

    /// Returns a message if `cells` begin with the phandle of a controller, which does not belong
    /// in `interrupts`.
    fn begins_with_phandle(&self, cells: &[u32]) -> Option<String> {
        let named = self.tree.by_phandle(*cells.first()?).filter(|named| named.has(CELLS))?;
        let path = named.path();
        Some(format!(
            "`interrupts` begins with the phandle of {path}, as `interrupts-extended` does"
        ))
    }

    /// Reads `interrupts-extended`, up to the first reference whose number of cells is unknown.
    fn extended(
        &mut self,
        node: NodeRef<'t, 'a>,
        cells: &[u32],
        interrupts: &mut Vec<Fact<IntId>>,
    ) {
        for (parent, specifier) in references::extended(self.tree, cells).map_while(Result::ok) {
            if self.is_gic(parent) {
                self.add(node, EXTENDED, specifier, interrupts);
            }
        }
    }

    fn map(&mut self, node: NodeRef<'t, 'a>, cells: &[u32], interrupts: &mut Vec<Fact<IntId>>) {
        if node.status().is_enabled() && references::map(self.tree, node, cells, self.findings) {
            return;
        }
        for entry in map_entries(self.tree, node, cells) {
            if self.is_gic(entry.parent) {
                self.add(node, MAP, entry.specifier, interrupts);
            }
        }
    }

    fn is_gic(&self, node: NodeRef<'_, '_>) -> bool {
        node.index() == self.gic.index()
    }

    /// Adds the interrupt that `specifier` encodes. Defects of a disabled node are not reported.
    fn add(
        &mut self,
        node: NodeRef<'t, 'a>,
        property: &'static str,
        specifier: &[u32],
        interrupts: &mut Vec<Fact<IntId>>,
    ) {
        let is_enabled = node.status().is_enabled();
        match interrupt(specifier) {
            Ok(intid) => {
                interrupts.push(Fact::new(intid, node.origin(property)));
                if is_enabled {
                    let flags = specifier.get(2).copied().unwrap_or_default();
                    self.uses.add(Use { node, property, intid, flags });
                }
            }
            Err(message) if is_enabled => {
                let is_odd = property == INTERRUPTS && !has_type(specifier);
                let phandle = is_odd.then(|| self.begins_with_phandle(specifier)).flatten();
                let message = phandle.unwrap_or(message);
                self.findings.add(Rule::InterruptSpecifier, node.origin(property), message);
            }
            Err(_) => {}
        }
    }
}

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
