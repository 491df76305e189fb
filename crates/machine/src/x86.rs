//! The hardware of an x86 machine that messages meet: local APICs, and an interrupt remapping unit in front of them. Both
//! decode by the manuals' words, with none of the drivers' code.

mod chipset;
mod interrupt_remapping;
mod kernel;
mod local_apics;

pub(crate) use chipset::Chipset;
pub(crate) use interrupt_remapping::RemappingUnit;
pub(crate) use kernel::{Kernel, TableMemory};
pub(crate) use local_apics::LocalApics;
