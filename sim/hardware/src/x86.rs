//! The hardware of an x86 machine that messages meet: local APICs, and an interrupt remapping unit
//! in front of them. Both decode by the manuals' words, with none of the drivers' code.

mod chipset;
mod interrupt_remapping;
mod kernel;
mod local_apics;

pub use chipset::Chipset;
pub use interrupt_remapping::RemappingUnit;
pub use kernel::{RemapTableMemory, X86Kernel};
pub use local_apics::LocalApicBank;
