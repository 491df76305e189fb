//! Plants faults into our Direct LPI driver, and checks that each of them is found.

use anyhow::{Context, Result, ensure};
use doorbell_harness::apt::Suite;
use doorbell_harness::suite;

use super::{NamedBy, case, guest_with, own_sources};
use crate::built;
use crate::linux::{Case, FEW_READS};

/// A fault, planted by replacing a text that occurs once in the driver.
#[derive(Clone, Copy)]
struct Fault {
    name: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    case: Case,
    named: NamedBy,
}

/// A kernel on two vCPUs. All CPUs but the first are offline while drivers start.
const PLAIN: Case = case(2, 2).reading(FEW_READS);

const FAULTS: &[Fault] = &[
    Fault {
        name: "no INVLPIR at the new redistributor",
        file: "interrupts.c",
        old: "\t\tdlpi_invalidate(cpu, block->base + at);\n",
        new: "",
        // Otherwise, the second redistributor first reads the byte after it was enabled.
        case: PLAIN.told("awake"),
        named: NamedBy::Judge("ten pings had no answer"),
    },
    Fault {
        name: "an address that is written before its data",
        file: "msi-domain.c",
        old: "static struct irq_chip chip = {\n",
        new: TORN,
        case: PLAIN,
        named: NamedBy::Hypervisor(&["GICR_SETLPIR = 0x0", "no such interrupt"]),
    },
    Fault {
        name: "no wait for SYNCR",
        file: "redistributors.c",
        old: "if (readl_relaxed_poll_timeout_atomic(base + GICR_SYNCR, busy, !(busy & 1), 1, \
              TIMEOUT_US))",
        new: "busy = 0;\n\tif (busy)",
        case: PLAIN,
        named: NamedBy::Hypervisor(&["GICR_INVLPIR", "before GICR_SYNCR.Busy was read as 0"]),
    },
    Fault {
        name: "a message that stays at the old redistributor",
        file: "interrupts.c",
        old: "\treturn IRQ_SET_MASK_OK;\n",
        new: "\treturn IRQ_SET_MASK_OK_DONE;\n",
        case: PLAIN,
        named: NamedBy::Judge("CPU 1 took 80 of 100 PCI MSIs"),
    },
    Fault {
        name: "too few bits in GICR_PROPBASER",
        file: "redistributors.c",
        old: "(ilog2(intids) - 1);",
        new: "(ilog2(intids) - 2);",
        case: PLAIN.with("id_bits=14"),
        named: NamedBy::Hypervisor(&["GICR_PROPBASER", "LPI table too small"]),
    },
    Fault {
        name: "one pending table for all redistributors",
        file: "redistributors.c",
        old: "tables = virt_to_phys(redistributor_of(cpu)->pending)",
        new: "tables = virt_to_phys(redistributor_of(0)->pending)",
        case: PLAIN.told("awake"),
        named: NamedBy::Hypervisor(&["GICR_PENDBASER", "overlaps that of another redistributor"]),
    },
];

/// The start of the chip, preceded by a function that lets a device send messages between the
/// writes of address and data.
const TORN: &str = "\
#include <linux/delay.h>

static void write_torn(struct irq_data *d, struct msi_msg *msg)
{
\tstruct msi_msg torn = *msg;

\ttorn.data = 0;
\tpci_write_msi_msg(d->irq, &torn);
\tmdelay(5);
\tpci_write_msi_msg(d->irq, msg);
}

static struct irq_chip chip = {
\t.irq_write_msi_msg = write_torn,
";

/// Lists the cases, one for each fault. The driver without faults has its own cases.
pub(super) fn cases() -> impl Iterator<Item = suite::Case> {
    FAULTS.iter().map(|fault| {
        let name = format!("our Direct LPI driver, with a fault: {} is found", fault.name);
        built::case(name, fault.case.limit(), move || {
            let sources = planted(own_sources()?, fault)?;
            let name = format!("fault-{}", fault.name.replace(' ', "-")).to_lowercase();
            let guest = guest_with(Suite::Stable, &name, &sources)?;
            fault.named.check(fault.case, &guest, &name)
        })
    })
}

/// Plants a fault.
///
/// # Errors
/// The text that the fault replaces does not occur exactly once.
fn planted(mut sources: Vec<(String, String)>, fault: &Fault) -> Result<Vec<(String, String)>> {
    let source = sources.iter_mut().find(|(name, _)| name == fault.file);
    let (name, text) = source.with_context(|| format!("the driver has no {}", fault.file))?;
    let times = text.matches(fault.old).count();
    ensure!(times == 1, "{name} has this text {times} times: {:?}", fault.old);
    *text = text.replace(fault.old, fault.new);
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_changes_the_driver_in_one_place() {
        for fault in FAULTS {
            let (before, after) = (own_sources().unwrap(), planted(own_sources().unwrap(), fault));
            let after = after.unwrap();
            let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert_eq!(changed.count(), 1, "{}", fault.name);
        }
    }

    #[test]
    fn a_fault_needs_a_text_that_occurs_once() {
        let source = |text: String| vec![(FAULTS[0].file.to_owned(), text)];
        let judged = |times| planted(source(FAULTS[0].old.repeat(times)), &FAULTS[0]);
        assert!(judged(0).is_err() && judged(2).is_err());
        assert_eq!(judged(1).unwrap(), source(FAULTS[0].new.to_owned()));
    }
}
