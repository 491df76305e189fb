//! Linux's interrupts, from `/proc/interrupts`, sysfs, procfs and debugfs.

use super::root::Root;
use serde::Serialize;
use std::collections::BTreeMap;

/// Maximum length of `/proc/interrupts`.
const MAX_TABLE: u64 = 64 << 20;
/// Maximum number of domains in an interrupt's hierarchy.
const MAX_LEVELS: usize = 16;
/// Folder with one file for each interrupt. It exists if debugfs is mounted and the kernel was
/// built with `CONFIG_GENERIC_IRQ_DEBUGFS`.
const DEBUG: &str = "sys/kernel/debug/irq/irqs";

/// An interrupt of Linux.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Irq {
    /// Name of the outermost `irq_chip`, such as `ITS-MSI`.
    pub(super) chip: String,
    /// Hardware interrupt number in the domain of that chip.
    pub(super) hwirq: Option<u64>,
    /// CPUs to which the interrupt is routed, as a list such as `0-3,8`.
    pub(super) cpus: Option<String>,
    /// Number of times that the interrupt occurred, over all CPUs.
    pub(super) count: u64,
    pub(super) handlers: Vec<String>,
    /// CPUs that may be its target, in the same form.
    #[serde(skip)]
    pub(super) allowed: Option<String>,
    /// State that is visible only in debugfs.
    #[serde(skip)]
    pub(super) debug: Option<DebugState>,
}

/// State of an interrupt in debugfs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct DebugState {
    /// Names of the domains in the interrupt's hierarchy, and its hwirq in each. The root
    /// controller's domain is the last.
    pub(super) domains: Vec<(String, u64)>,
    /// `true` if a driver has disabled the interrupt.
    pub(super) is_disabled: bool,
}

impl Irq {
    /// Returns the interrupt's INTID. Without debugfs, only the INTIDs of wired interrupts are
    /// known.
    pub(super) fn intid(&self) -> Option<u32> {
        let of_root = self.debug.as_ref().and_then(|state| state.domains.last());
        let of_chip = self.hwirq.filter(|_| self.chip.starts_with("GIC-") || self.chip == "GICv3");
        u32::try_from(of_root.map(|(_, number)| *number).or(of_chip)?).ok()
    }

    /// Returns `true` if none of the interrupt's CPUs is in the list `online`. Only a managed
    /// interrupt, whose CPUs the kernel chose for a queue, is then kept shut down; others are moved
    /// (Linux, `kernel/irq/cpuhotplug.c`).
    pub(super) fn is_shut_down(&self, online: &str) -> bool {
        let allowed = self.allowed.as_deref().filter(|list| ranges(list).next().is_some());
        allowed.is_some_and(|list| {
            !ranges(list)
                .any(|(low, high)| ranges(online).any(|(from, to)| from <= high && low <= to))
        })
    }

    /// Returns the first CPU to which the interrupt is routed.
    pub(super) fn first_cpu(&self) -> Option<u32> {
        ranges(self.cpus.as_deref()?).next().map(|(low, _)| low)
    }
}

/// Reads all interrupts, by Linux's interrupt numbers.
pub(super) fn read(root: &Root) -> BTreeMap<u32, Irq> {
    let table = root.long_text("proc/interrupts", MAX_TABLE).unwrap_or_default();
    let mut irqs = parse_table(&table);
    for name in root.names("sys/kernel/irq") {
        if let Ok(number) = name.parse() {
            add_attributes(root, &name, irqs.entry(number).or_default());
        }
    }
    for (number, irq) in &mut irqs {
        irq.cpus = root.text(&format!("proc/irq/{number}/effective_affinity_list"));
        irq.cpus.take_if(|cpus| cpus.is_empty());
        irq.allowed = root.text(&format!("proc/irq/{number}/smp_affinity_list"));
        irq.debug = root.text(&format!("{DEBUG}/{number}")).map(|text| parse_debug(&text));
    }
    irqs
}

/// Adds the attributes in sysfs. Unlike `/proc/interrupts`, sysfs also lists interrupts without a
/// handler.
fn add_attributes(root: &Root, name: &str, irq: &mut Irq) {
    let attribute = |attribute: &str| root.text(&format!("sys/kernel/irq/{name}/{attribute}"));
    if let Some(chip) = attribute("chip_name") {
        irq.chip = chip;
    }
    irq.hwirq = attribute("hwirq").and_then(|number| number.parse().ok()).or(irq.hwirq);
    if let Some(actions) = attribute("actions") {
        irq.handlers = names(&actions);
    }
    if let Some(counts) = attribute("per_cpu_count") {
        irq.count = sum(counts.split(','));
    }
}

/// Parses `/proc/interrupts`: a header with the online CPUs, then a row for each interrupt with its
/// number, its counts, its chip, its number in the chip's domain, its trigger, and its handlers.
fn parse_table(table: &str) -> BTreeMap<u32, Irq> {
    let mut lines = table.lines();
    let cpus = lines.next().unwrap_or_default().split_whitespace().count();
    lines.filter_map(|line| parse_row(line, cpus)).collect()
}

fn parse_row(line: &str, cpus: usize) -> Option<(u32, Irq)> {
    let (number, rest) = line.split_once(':')?;
    let number = number.trim().parse().ok()?;
    let mut words = rest.split_whitespace();
    let count = sum(words.by_ref().take(cpus));
    let chip = words.next()?.to_owned();
    // On x86, a hyphen joins the number and the trigger, as in `1-edge`.
    let hwirq = words.next().and_then(|word| word.split('-').next()?.parse().ok());
    let handlers = words.skip_while(|word| ["Edge", "Level"].contains(word));
    let handlers = names(&handlers.collect::<Vec<_>>().join(" "));
    Some((number, Irq { chip, hwirq, count, handlers, ..Irq::default() }))
}

/// Parses the debugfs file of an interrupt, which Linux's `kernel/irq/debugfs.c` writes. Each line
/// is a name and a value. The description of each domain starts with a line `domain`.
fn parse_debug(text: &str) -> DebugState {
    let mut state = DebugState::default();
    let mut domain = None;
    for line in text.lines().map(str::trim) {
        if line == "IRQD_IRQ_DISABLED" {
            state.is_disabled = true;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name {
            "domain" => domain = Some(value.to_owned()),
            "hwirq" if state.domains.len() < MAX_LEVELS => {
                let digits = value.strip_prefix("0x").unwrap_or(value);
                let number = u64::from_str_radix(digits, 16);
                state.domains.extend(domain.take().zip(number.ok()));
            }
            _ => {}
        }
    }
    state
}

/// Splits a list of handlers. Linux prints `(null)` for a handler without a name.
fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn sum<'a>(numbers: impl Iterator<Item = &'a str>) -> u64 {
    numbers.filter_map(|number| number.trim().parse().ok()).fold(0, u64::saturating_add)
}

/// Returns `true` if a list such as `0-3,8` contains a number.
pub(super) fn contains(list: &str, number: u32) -> bool {
    ranges(list).any(|(low, high)| (low..=high).contains(&number))
}

/// Returns the ranges in a list such as `0-3,8`.
fn ranges(list: &str) -> impl Iterator<Item = (u32, u32)> {
    list.split(',').filter_map(|part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    const TABLE: &str = "           CPU0       CPU1       \n \
        13:          0          0     GICv3  33 Level     uart-pl011\n \
        17:          1          4   ITS-MSI 16384 Edge      PCIe PME, aerdrv\n\
        IPI0:        89         68       Rescheduling interrupts\n\
        Err:          0\n";

    #[test]
    fn rows_of_proc_interrupts_are_parsed() {
        let irqs = read(&Tree::new().file("proc/interrupts", TABLE).root());
        assert_eq!(irqs.len(), 2);
        assert_eq!((irqs[&13].intid(), &irqs[&13].handlers[0]), (Some(33), &"uart-pl011".into()));
        let message = &irqs[&17];
        assert_eq!(
            (message.chip.as_str(), message.hwirq, message.count),
            ("ITS-MSI", Some(16384), 5)
        );
        assert_eq!((message.handlers.len(), message.intid()), (2, None));
    }

    #[test]
    fn x86_rows_of_proc_interrupts_are_parsed() {
        let table =
            "  CPU0\n  1:  9  IO-APIC   1-edge      i8042\n 24: 3 PCI-MSI-0000:00:02.0 0-edge n";
        let irqs = parse_table(table);
        assert_eq!((irqs[&1].hwirq, irqs[&1].handlers[0].as_str()), (Some(1), "i8042"));
        assert_eq!((irqs[&24].chip.as_str(), irqs[&24].count), ("PCI-MSI-0000:00:02.0", 3));
    }

    #[test]
    fn attribute_files_supplement_the_rows_of_proc_interrupts() {
        let tree = Tree::new()
            .file("proc/interrupts", TABLE)
            .file("sys/kernel/irq/17/chip_name", "ITS-MSI\n")
            .file("sys/kernel/irq/17/per_cpu_count", "2,5\n")
            .file("sys/kernel/irq/18/hwirq", "49152\n")
            .file("sys/kernel/irq/18/actions", "\n")
            .file("proc/irq/17/effective_affinity_list", "1\n")
            .file("proc/irq/18/effective_affinity_list", "\n");
        let irqs = read(&tree.root());
        assert_eq!((irqs[&17].count, irqs[&17].first_cpu()), (7, Some(1)));
        assert_eq!((irqs[&18].hwirq, irqs[&18].first_cpu()), (Some(49152), None));
        assert!(irqs[&18].handlers.is_empty());
    }

    #[test]
    fn the_irq_domain_hierarchy_is_read_from_debugfs() {
        let text = "handler:  handle_fasteoi_irq\nddepth:   1\ndstate:   0x31411200\n  \
            IRQD_IRQ_DISABLED\ndomain:  :its@8080000-3\n hwirq:   0x4000\n chip:    ITS-MSI\n \
            parent:\n    domain:  :intc@8000000-1\n     hwirq:   0x2008\n     chip: GICv3\n";
        let irqs = read(
            &Tree::new().file(&format!("{DEBUG}/17"), text).file("proc/interrupts", TABLE).root(),
        );
        let state = irqs[&17].debug.as_ref().unwrap();
        assert!(state.is_disabled);
        assert_eq!(
            state.domains,
            [(":its@8080000-3".into(), 0x4000), (":intc@8000000-1".into(), 8200)]
        );
        assert_eq!(irqs[&17].intid(), Some(8200));
    }

    #[test]
    fn malformed_rows_of_the_interrupt_table_are_skipped() {
        let counts = format!(" CPU0 CPU1\n 1: {0} {0} chip x", u64::MAX);
        assert_eq!(parse_table(&counts)[&1].count, u64::MAX);
        for table in ["", ":", "1:", "CPU0\n99999999999: 1 a", "CPU0\n1:", "\n\u{0}: \u{fffd}"] {
            assert!(parse_table(table).is_empty(), "{table:?}");
        }
        assert!(!contains("4-1,x-,-,7-99999999999", 3) && contains("0-3,8", 8));
    }
}
