//! The parts of an x86 machine that handle messages: local APICs, and an interrupt remapping unit
//! in front of them. The APICs and the remapping unit are written from the manuals, and share no
//! decoding code with the drivers.

mod chipset;
mod interrupt_remapping;
mod kernel;
mod local_apics;

pub use chipset::Chipset;
pub use interrupt_remapping::RemappingUnit;
pub use kernel::{RemapTableMemory, X86Kernel};
pub use local_apics::LocalApicBank;
