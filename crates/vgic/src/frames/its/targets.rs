//! The operand RDbase of commands (IHI 0069 §5.3): a redistributor's number or its address, as
//! `GITS_TYPER.PTA` says.

use alloc::boxed::Box;
use gic_arch::its::RdBase;

/// The names of the vCPUs' redistributors in commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Targets {
    /// By vCPU: `GICR_TYPER.Processor_Number`.
    ProcessorNumbers(Box<[u16]>),
    /// By vCPU: the physical address of RD_base.
    Addresses(Box<[u64]>),
}

impl Targets {
    /// The vCPU that a command names.
    pub(super) fn find(&self, target: RdBase) -> Option<u16> {
        let vcpu = match self {
            Self::ProcessorNumbers(numbers) => {
                let number = target.processor_number()?;
                // Most often the numbers are the vCPUs' own.
                if numbers.get(usize::from(number)) == Some(&number) {
                    return Some(number);
                }
                numbers.iter().position(|of| *of == number)
            }
            Self::Addresses(addresses) => addresses.iter().position(|of| *of == target.address()),
        };
        u16::try_from(vcpu?).ok()
    }
}
