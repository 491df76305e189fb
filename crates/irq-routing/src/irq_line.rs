//! Encoding of interrupt inputs in `KVM_IRQ_LINE` on Arm. The number combines an INTID with its
//! type and CPU; it is **not** a GSI.
//!
//! | bits | field |
//! |---|---|
//! | 31:28 | vCPU, in units of 256 (`KVM_CAP_ARM_IRQ_LINE_LAYOUT_2`) |
//! | 27:24 | type: 0 CPU input, 1 SPI, 2 PPI |
//! | 23:16 | vCPU, low 8 bits |
//! | 15:0 | INTID, or number of the CPU input |
//!
//! Source: Linux, Documentation/virt/kvm/api.rst, KVM_IRQ_LINE.

use msi_types::{Cpu, Line};

/// An interrupt input that `KVM_IRQ_LINE` can drive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IrqLine {
    /// A CPU's interrupt input, for VMMs that emulate the interrupt controller themselves.
    CpuInput {
        /// The CPU.
        cpu: Cpu,
        /// That CPU's input.
        input: CpuInput,
    },
    /// An input at the interrupt controller: an SPI from 32 to 1019, or a PPI from 16 to 31.
    Line(Line),
}

/// A CPU's interrupt input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CpuInput {
    /// IRQ.
    Irq,
    /// FIQ.
    Fiq,
}

/// Error in encoding or decoding an input. The caller is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IrqLineError {
    /// Bits 27:24 are not a valid type.
    #[error("{0} is not a type of input: 0 is a CPU input, 1 an SPI, 2 a PPI")]
    UnknownType(u8),
    /// The INTID is not an SPI.
    #[error("INTID {0} is not an SPI: SPIs are 32 to 1019")]
    NotAnSpi(u16),
    /// The INTID is not a PPI.
    #[error("INTID {0} is not a PPI: PPIs are 16 to 31")]
    NotAPpi(u16),
    /// The CPU input is neither IRQ nor FIQ.
    #[error("a CPU has no interrupt input {0}: 0 is IRQ, 1 is FIQ")]
    NoSuchInput(u16),
    /// The interrupt controller owns the CPU's inputs; callers must drive the controller's inputs
    /// instead.
    #[error("CPU {0}'s inputs belong to the interrupt controller: drive one of its inputs instead")]
    DrivenByController(Cpu),
    /// The input cannot be encoded.
    #[error("{0:?} cannot be encoded: the limits are SPIs 32 to 1019, PPIs 16 to 31 and CPU 4095")]
    Unnameable(IrqLine),
}

const CPU_INPUT: u32 = 0;
const SPI: u32 = 1;
const PPI: u32 = 2;
const SPIS: core::ops::RangeInclusive<u32> = 32..=1019;
const PPIS: core::ops::RangeInclusive<u32> = 16..=31;
/// Number of CPUs that can be encoded. The CPU field has 12 bits, in parts of 4 and 8 bits.
const CPUS: u32 = 1 << 12;

impl IrqLine {
    /// Decodes a `KVM_IRQ_LINE` number. Ignores an SPI's CPU field.
    ///
    /// # Errors
    /// Returns an error if the number is not a valid encoding.
    pub const fn decode(number: u32) -> Result<Self, IrqLineError> {
        let cpu = Cpu::new((number >> 28) * 256 + (number >> 16 & 0xff));
        let id = number & 0xffff;
        let narrow = (number & 0xffff) as u16;
        match number >> 24 & 0xf {
            CPU_INPUT => match id {
                0 => Ok(Self::CpuInput { cpu, input: CpuInput::Irq }),
                1 => Ok(Self::CpuInput { cpu, input: CpuInput::Fiq }),
                _ => Err(IrqLineError::NoSuchInput(narrow)),
            },
            SPI if id >= *SPIS.start() && id <= *SPIS.end() => Ok(Self::Line(Line::Spi(id))),
            SPI => Err(IrqLineError::NotAnSpi(narrow)),
            PPI if id >= *PPIS.start() && id <= *PPIS.end() => {
                Ok(Self::Line(Line::Ppi { cpu, intid: id }))
            }
            PPI => Err(IrqLineError::NotAPpi(narrow)),
            other => Err(IrqLineError::UnknownType((other & 0xf) as u8)),
        }
    }

    /// Encodes an input. The CPU field is 0 for an SPI.
    ///
    /// # Errors
    /// Returns [`IrqLineError::Unnameable`] if the CPU or the INTID is out of range. Extended SPIs
    /// and PPIs cannot be encoded.
    pub fn encode(self) -> Result<u32, IrqLineError> {
        let (kind, cpu, id) = match self {
            Self::CpuInput { cpu, input } => (CPU_INPUT, cpu, u32::from(input == CpuInput::Fiq)),
            Self::Line(Line::Spi(intid)) if SPIS.contains(&intid) => (SPI, Cpu::new(0), intid),
            Self::Line(Line::Ppi { cpu, intid }) if PPIS.contains(&intid) => (PPI, cpu, intid),
            Self::Line(_) => return Err(IrqLineError::Unnameable(self)),
        };
        if cpu.get() >= CPUS {
            return Err(IrqLineError::Unnameable(self));
        }
        Ok(cpu.get() >> 8 << 28 | kind << 24 | (cpu.get() & 0xff) << 16 | id)
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn irq_line_fields_match_the_kvm_layout() {
        let ppi = Line::Ppi { cpu: Cpu::new(0x3a5), intid: 27 };
        assert_eq!(IrqLine::decode(0x32a5_001b), Ok(IrqLine::Line(ppi)));
        assert_eq!(IrqLine::decode(0x0100_0020), Ok(IrqLine::Line(Line::Spi(32))));
        let fiq = IrqLine::CpuInput { cpu: Cpu::new(2), input: CpuInput::Fiq };
        assert_eq!(IrqLine::decode(0x0002_0001), Ok(fiq));
    }

    #[test]
    fn decoding_an_spi_ignores_the_cpu_field() {
        assert_eq!(IrqLine::decode(0xf1ff_03fb), Ok(IrqLine::Line(Line::Spi(1019))));
    }

    #[test]
    fn irq_line_ids_out_of_range_are_refused() {
        for (number, decoded) in [
            (0x0100_001f, Err(IrqLineError::NotAnSpi(31))),
            (0x0100_03fc, Err(IrqLineError::NotAnSpi(1020))),
            (0x0100_2000, Err(IrqLineError::NotAnSpi(8192))),
            (0x0200_000f, Err(IrqLineError::NotAPpi(15))),
            (0x0200_0020, Err(IrqLineError::NotAPpi(32))),
            (0x0000_0002, Err(IrqLineError::NoSuchInput(2))),
            (0x0300_0020, Err(IrqLineError::UnknownType(3))),
            (0x0f00_0020, Err(IrqLineError::UnknownType(15))),
        ] {
            assert_eq!(IrqLine::decode(number), decoded, "{number:#x}");
        }
    }

    #[test]
    fn encoding_an_oversized_cpu_is_refused() {
        let cpu = Cpu::new(4096);
        for line in [
            IrqLine::Line(Line::Ppi { cpu, intid: 16 }),
            IrqLine::CpuInput { cpu, input: CpuInput::Irq },
        ] {
            assert_eq!(line.encode(), Err(IrqLineError::Unnameable(line)));
        }
    }

    proptest! {
        #[test]
        fn a_decoded_irq_line_encodes_to_the_same_number(number: u32) {
            if let Ok(line) = IrqLine::decode(number) {
                let ignored =
                    if matches!(line, IrqLine::Line(Line::Spi(_))) { 0xf0ff_0000 } else { 0 };
                prop_assert_eq!(line.encode(), Ok(number & !ignored));
            }
        }
    }
}
