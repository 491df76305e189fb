//! Decodes an exit's syndrome: `ESR_EL2`, `FAR_EL2` and `HPFAR_EL2` (DDI 0487, D19.2).

use gic_arch::icc::SysRegEncoding;
use vgic::AccessWidth;

/// A trapped guest action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trap {
    /// WFI.
    WaitForInterrupt,
    /// HVC. The return address is the next instruction.
    HypervisorCall,
    /// SMC. The return address is the SMC itself.
    SecureMonitorCall,
    /// MRS or MSR.
    SystemRegister(RegisterAccess),
    /// A load or store to an address that stage 2 does not map.
    Device(DeviceAccess),
    /// A load or store that the syndrome does not describe: of a pair or a vector register, an
    /// atomic access, cache maintenance, or a walk of the guest's own tables.
    UndescribedAccess {
        /// Guest virtual address.
        address: u64,
    },
    /// An instruction fetch from an address that stage 2 does not map.
    Fetch {
        /// Guest virtual address.
        address: u64,
    },
    /// Any other instruction; the guest sees it as undefined.
    Undefined,
}

/// An access to a system register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RegisterAccess {
    pub(crate) encoding: SysRegEncoding,
    /// Number of the general-purpose register.
    pub(crate) register: usize,
    pub(crate) is_read: bool,
}

impl RegisterAccess {
    /// Returns `true` for debug and performance monitor registers (DDI 0487, D22).
    pub(crate) fn is_debugging(self) -> bool {
        let packed = self.encoding.packed();
        let (op0, crn) = (packed >> 14, packed >> 7 & 15);
        op0 == 2 || op0 == 3 && (crn == 9 || crn == 14 && packed >> 3 & 15 >= 8)
    }
}

/// A load or store of one general-purpose register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeviceAccess {
    /// Guest physical address.
    pub(crate) address: u64,
    /// Guest virtual address.
    pub(crate) virtual_address: u64,
    pub(crate) width: AccessWidth,
    pub(crate) register: usize,
    pub(crate) is_write: bool,
    /// Extension of the loaded value.
    pub(crate) extension: Extension,
}

/// Extension of a loaded value to the full register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extension {
    Zero,
    Sign32,
    Sign64,
}

impl Extension {
    /// Returns the content of the register after a load of `value`.
    pub(crate) fn apply(self, value: u64, width: AccessWidth) -> u64 {
        let unused = 64 - 8 * width.bytes();
        let extended = ((value << unused).cast_signed() >> unused).cast_unsigned();
        match self {
            Self::Zero => value & width.mask(),
            Self::Sign32 => extended & 0xffff_ffff,
            Self::Sign64 => extended,
        }
    }
}

/// Exception classes (`ESR_EL2.EC`).
mod class {
    pub(super) const WAIT: u64 = 0x01;
    pub(super) const HVC: u64 = 0x16;
    pub(super) const SMC: u64 = 0x17;
    pub(super) const SYSTEM_REGISTER: u64 = 0x18;
    pub(super) const FETCH: u64 = 0x20;
    pub(super) const DATA: u64 = 0x24;
}

impl Trap {
    /// Decodes the registers of an exit.
    pub(crate) fn decode(esr: u64, far: u64, hpfar: u64) -> Self {
        match esr >> 26 & 0x3f {
            class::WAIT => Self::WaitForInterrupt,
            class::HVC => Self::HypervisorCall,
            class::SMC => Self::SecureMonitorCall,
            class::SYSTEM_REGISTER => Self::SystemRegister(register_access(esr)),
            class::FETCH => Self::Fetch { address: far },
            class::DATA => data_abort(esr, far, hpfar),
            _ => Self::Undefined,
        }
    }
}

fn register_access(esr: u64) -> RegisterAccess {
    let field = |shift: u32, bits: u32| (esr >> shift & ((1 << bits) - 1)) as u16;
    RegisterAccess {
        encoding: SysRegEncoding::new(
            field(20, 2),
            field(14, 3),
            field(10, 4),
            field(1, 4),
            field(17, 3),
        ),
        register: field(5, 5).into(),
        is_read: esr & 1 != 0,
    }
}

fn data_abort(esr: u64, far: u64, hpfar: u64) -> Trap {
    const VALID: u64 = 1 << 24;
    const SIGN_EXTENDS: u64 = 1 << 21;
    const SIXTY_FOUR_BITS: u64 = 1 << 15;
    const WALK: u64 = 1 << 7;
    const WRITES: u64 = 1 << 6;
    /// Fault status code of a translation fault, without its level.
    const TRANSLATION: u64 = 0b0001;
    let is_described = esr & VALID != 0 && esr & WALK == 0 && esr >> 2 & 0xf == TRANSLATION;
    let width = AccessWidth::try_from(1_usize << (esr >> 22 & 3));
    match width {
        Ok(width) if is_described => Trap::Device(DeviceAccess {
            address: (hpfar & !0xf) << 8 | far & 0xfff,
            virtual_address: far,
            width,
            register: (esr >> 16 & 0x1f) as usize,
            is_write: esr & WRITES != 0,
            extension: match (esr & SIGN_EXTENDS != 0, esr & SIXTY_FOUR_BITS != 0) {
                (false, _) => Extension::Zero,
                (true, false) => Extension::Sign32,
                (true, true) => Extension::Sign64,
            },
        }),
        _ => Trap::UndescribedAccess { address: far },
    }
}
