//! RDbase operands in commands (IHI 0069 §5.3): a redistributor's number or its address, depending
//! on `GITS_TYPER.PTA`.

use alloc::boxed::Box;
use gic_arch::its::RdBase;

/// RDbase operands of the redistributors, indexed by vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Targets {
    /// `GICR_TYPER.Processor_Number` of each vCPU.
    ProcessorNumbers(Box<[u16]>),
    /// Physical address of each vCPU's RD_base.
    Addresses(Box<[u64]>),
}

impl Targets {
    /// Returns the target vCPU of a command.
    pub(super) fn find(&self, target: RdBase) -> Option<u16> {
        let vcpu = match self {
            Self::ProcessorNumbers(numbers) => {
                let number = target.processor_number()?;
                // Usually, processor numbers equal vCPU indices.
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
