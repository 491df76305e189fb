//! Decodes an exit's syndrome: `ESR_EL2`, `FAR_EL2` and `HPFAR_EL2` (DDI 0487, D19.2).

use gic_arch::icc::SysRegEncoding;
use vgic::AccessWidth;

/// A trapped guest action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
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
    /// A load or store that the syndrome does not describe: with an update of the base register, of
    /// a pair or a vector register, or an atomic access.
    Undescribed(UndescribedAccess),
    /// Cache maintenance by an address that stage 2 does not map, which has no effect.
    CacheMaintenance,
    /// A load or store that aborted for another reason: during the walk of the guest's own tables,
    /// or at a device.
    Abort {
        /// Guest virtual address.
        address: u64,
    },
    /// An instruction fetch from an address that stage 2 does not map.
    Fetch {
        /// Guest virtual address.
        address: u64,
        /// Guest physical address, or that of the guest's table if the walk aborted.
        physical: u64,
    },
    /// Any other instruction; the guest sees it as undefined.
    Undefined,
}

/// An access to a system register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterAccess {
    /// The system register.
    pub encoding: SysRegEncoding,
    /// Number of the general-purpose register.
    pub register: usize,
    /// `true` for MRS.
    pub is_read: bool,
}

impl RegisterAccess {
    /// Returns `true` for debug registers (DDI 0487, D22).
    pub fn is_debugging(self) -> bool {
        self.encoding.packed() >> 14 == 2
    }
}

/// A load or store of one general-purpose register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceAccess {
    /// Guest physical address.
    pub address: u64,
    /// Guest virtual address.
    pub virtual_address: u64,
    /// Width of the access in memory.
    pub width: AccessWidth,
    /// Number of the general-purpose register.
    pub register: usize,
    /// `true` for a store.
    pub is_write: bool,
    /// Extension of the loaded value.
    pub extension: Extension,
}

/// A load or store whose width and register the syndrome does not contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UndescribedAccess {
    /// Guest physical address.
    pub address: u64,
    /// Guest virtual address.
    pub virtual_address: u64,
    /// `true` for a store.
    pub is_write: bool,
}

/// PSTATE.M: the vCPU executes AArch32 instructions.
const AARCH32: u64 = 1 << 4;
/// PSTATE.SS: the vCPU is to execute one instruction.
const SINGLE_STEP: u64 = 1 << 21;
/// `SCTLR_EL1`: loads and stores at EL0 and at EL1 are big-endian.
const E0E: u64 = 1 << 24;
const EE: u64 = 1 << 25;

/// Order of the bytes in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    /// Returns the order of a guest's loads and stores. `pstate` is in `SPSR_EL2` format.
    pub(crate) fn of(pstate: u64, sctlr_el1: u64) -> Self {
        /// PSTATE.M: EL1.
        const EL1: u64 = 1 << 2;
        /// PSTATE.E of AArch32.
        const E: u64 = 1 << 9;
        let is_big = match pstate & (AARCH32 | EL1) {
            0 => sctlr_el1 & E0E != 0,
            EL1 => sctlr_el1 & EE != 0,
            _ => pstate & E != 0,
        };
        if is_big { Self::Big } else { Self::Little }
    }

    /// Converts between the value of a register and the value of little-endian memory.
    #[inline]
    pub(crate) fn convert(self, value: u64, width: AccessWidth) -> u64 {
        match self {
            Self::Little => value,
            Self::Big => value.swap_bytes() >> (64 - 8 * width.bytes()),
        }
    }
}

/// Returns `true` if an emulated instruction has four bytes, does not change PSTATE, and accesses
/// little-endian memory.
#[inline]
pub(crate) const fn is_simple(pstate: u64, sctlr_el1: u64) -> bool {
    pstate & (AARCH32 | SINGLE_STEP) | sctlr_el1 & (E0E | EE) == 0
}

/// Returns the PC and PSTATE after an emulated instruction. A single step is over, and an IT block
/// of AArch32 has advanced (DDI 0487, D2.12 and G1.2.4).
#[cold]
pub(crate) fn advanced(pc: u64, pstate: u64, esr: u64) -> (u64, u64) {
    /// `ESR_EL2.IL`: the instruction has 32 bits, not 16.
    const LONG: u64 = 1 << 25;
    /// PSTATE.IT: bits 7:2 and bits 1:0.
    const HIGH: u64 = 0x3f << 10;
    const LOW: u64 = 3 << 25;
    let pstate = pstate & !SINGLE_STEP;
    if pstate & AARCH32 == 0 {
        return (pc.wrapping_add(4), pstate);
    }
    let it = pstate >> 8 & 0xfc | pstate >> 25 & 3;
    let next = if it.trailing_zeros() < 3 { it & 0xe0 | it << 1 & 0x1f } else { 0 };
    let length = if esr & LONG == 0 { 2 } else { 4 };
    (pc.wrapping_add(length), pstate & !(HIGH | LOW) | next << 8 & HIGH | next << 25 & LOW)
}

/// Extension of a loaded value to the full register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extension {
    /// Zero-extended to 64 bits.
    Zero,
    /// Sign-extended to 32 bits, then zero-extended.
    Sign32,
    /// Sign-extended to 64 bits.
    Sign64,
}

impl Extension {
    /// Returns the content of the register after a load of `value`.
    pub fn apply(self, value: u64, width: AccessWidth) -> u64 {
        if self == Self::Zero {
            return value & width.mask();
        }
        let unused = 64 - 8 * width.bytes();
        let extended = ((value << unused).cast_signed() >> unused).cast_unsigned();
        if self == Self::Sign32 { extended & 0xffff_ffff } else { extended }
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

/// Fault status codes of a translation and of a permission fault, without their level.
const TRANSLATION: u64 = 0b0001;
const PERMISSION: u64 = 0b0011;
/// A data abort occurred during the walk of the guest's tables, or because of a store.
const WALK: u64 = 1 << 7;
const WRITES: u64 = 1 << 6;

impl Trap {
    /// Decodes the registers of an exit.
    #[inline]
    pub fn decode(esr: u64, far: u64, hpfar: u64) -> Self {
        match esr >> 26 & 0x3f {
            class::WAIT => Self::WaitForInterrupt,
            class::HVC => Self::HypervisorCall,
            class::SMC => Self::SecureMonitorCall,
            class::SYSTEM_REGISTER => Self::SystemRegister(register_access(esr)),
            class::FETCH => Self::Fetch { address: far, physical: physical(far, hpfar) },
            class::DATA => data_abort(esr, far, hpfar),
            _ => Self::Undefined,
        }
    }
}

/// Returns the page that stage 2 does not map, if that is the reason for an abort.
pub fn unmapped_page(esr: u64, hpfar: u64) -> Option<u64> {
    (esr >> 2 & 0xf == TRANSLATION).then_some((hpfar & !0xf) << 8)
}

/// Returns `true` for a store to a page that stage 2 maps read-only. The syndrome need not contain
/// its address (DDI 0487, `HPFAR_EL2`).
pub fn is_store_to_rom(esr: u64) -> bool {
    is_store(esr) && esr >> 2 & 0xf == PERMISSION
}

/// Returns `ESR_EL2` and `HPFAR_EL2` of a store to a guest physical address that stage 2 does not
/// map, for one to a page that stage 2 maps read-only.
pub const fn unmapped_store(esr: u64, address: u64) -> (u64, u64) {
    (esr & !(0xf << 2) | TRANSLATION << 2, address >> 12 << 4)
}

/// Returns `true` for the data abort of a store, except during the walk of the guest's tables.
pub fn is_store(esr: u64) -> bool {
    esr >> 26 & 0x3f == class::DATA && esr & (WALK | WRITES) == WRITES
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

const fn physical(far: u64, hpfar: u64) -> u64 {
    (hpfar & !0xf) << 8 | far & 0xfff
}

fn data_abort(esr: u64, far: u64, hpfar: u64) -> Trap {
    const VALID: u64 = 1 << 24;
    const SIGN_EXTENDS: u64 = 1 << 21;
    const SIXTY_FOUR_BITS: u64 = 1 << 15;
    const CACHE_MAINTENANCE: u64 = 1 << 8;
    /// Fault status code without its level, and its value for a translation fault.
    const STATUS: u64 = 0xf << 2;
    const NOT_MAPPED: u64 = TRANSLATION << 2;
    const DESCRIBED: u64 = VALID | NOT_MAPPED;
    const MAINTENANCE: u64 = CACHE_MAINTENANCE | NOT_MAPPED;
    let (address, is_write) = (physical(far, hpfar), esr & WRITES != 0);
    match esr & (VALID | CACHE_MAINTENANCE | WALK | STATUS) {
        DESCRIBED => Trap::Device(DeviceAccess {
            address,
            virtual_address: far,
            width: match esr >> 22 & 3 {
                0 => AccessWidth::Byte,
                1 => AccessWidth::Half,
                2 => AccessWidth::Word,
                _ => AccessWidth::Double,
            },
            register: (esr >> 16 & 0x1f) as usize,
            is_write,
            extension: match (esr & SIGN_EXTENDS != 0, esr & SIXTY_FOUR_BITS != 0) {
                (false, _) => Extension::Zero,
                (true, false) => Extension::Sign32,
                (true, true) => Extension::Sign64,
            },
        }),
        NOT_MAPPED => {
            Trap::Undescribed(UndescribedAccess { address, virtual_address: far, is_write })
        }
        MAINTENANCE => Trap::CacheMaintenance,
        _ => Trap::Abort { address: far },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: u64 = 0xffff_8000_0809_0124;
    /// `HPFAR_EL2` of this page.
    const HPFAR: u64 = 0x0809_0000 >> 8;
    const ADDRESS: u64 = 0x0809_0124;

    /// Returns `ESR_EL2` of a data abort: IL, and a translation fault at level 3.
    const fn data(syndrome: u64) -> u64 {
        0x24 << 26 | 1 << 25 | 0b00_0111 | syndrome
    }

    /// ISV, SAS, SSE, SRT, SF and WnR.
    const fn described(size: u64, sign: u64, register: u64, sixty_four: u64, write: u64) -> u64 {
        data(1 << 24 | size << 22 | sign << 21 | register << 16 | sixty_four << 15 | write << 6)
    }

    fn access(bytes: usize, register: usize, is_write: bool, extension: Extension) -> Trap {
        let width = AccessWidth::try_from(bytes).expect("the tables have valid widths");
        let (address, virtual_address) = (ADDRESS, FAR);
        let access =
            DeviceAccess { address, virtual_address, width, register, is_write, extension };
        Trap::Device(access)
    }

    fn undescribed(is_write: bool) -> Trap {
        let (address, virtual_address) = (ADDRESS, FAR);
        Trap::Undescribed(UndescribedAccess { address, virtual_address, is_write })
    }

    #[test]
    fn each_syndrome_is_decoded() {
        use Extension::{Sign32, Sign64, Zero};
        /// Op0 = 3, Op2 = 5, CRn = 12 and CRm = 11.
        const SGI: u64 = 3 << 20 | 5 << 17 | 12 << 10 | 11 << 1;
        let maintenance = |rest: u64| data(1 << 8 | 1 << 6 | rest);
        let register = |packed, register, is_read| {
            let encoding = SysRegEncoding::from_packed(packed);
            Trap::SystemRegister(RegisterAccess { encoding, register, is_read })
        };
        let table = [
            ("wfi", 0x01 << 26, Trap::WaitForInterrupt),
            ("hvc", 0x16 << 26, Trap::HypervisorCall),
            ("smc", 0x17 << 26, Trap::SecureMonitorCall),
            ("unknown", 0, Trap::Undefined),
            ("msr icc_sgi1r_el1, x5", 0x18 << 26 | SGI | 5 << 5, register(0xc65d, 5, false)),
            ("mrs x31", 0x18 << 26 | SGI | 31 << 5 | 1, register(0xc65d, 31, true)),
            ("fetch", 0x20 << 26, Trap::Fetch { address: FAR, physical: ADDRESS }),
            ("ldrb w1", described(0, 0, 1, 0, 0), access(1, 1, false, Zero)),
            ("ldrsh w2", described(1, 1, 2, 0, 0), access(2, 2, false, Sign32)),
            ("ldrsw x3", described(2, 1, 3, 1, 0), access(4, 3, false, Sign64)),
            ("ldr x30", described(3, 0, 30, 1, 0), access(8, 30, false, Zero)),
            ("str wzr", described(2, 0, 31, 0, 1), access(4, 31, true, Zero)),
            ("stp", data(1 << 6), undescribed(true)),
            ("ldp", data(0), undescribed(false)),
            ("dc civac", maintenance(0), Trap::CacheMaintenance),
            ("dc civac during a walk", maintenance(1 << 7), Trap::Abort { address: FAR }),
            ("ldr during a walk", data(1 << 7), Trap::Abort { address: FAR }),
            ("external abort", data(0) & !0x3f | 0b01_0000, Trap::Abort { address: FAR }),
            ("permission fault", described(2, 0, 0, 0, 0) ^ 0x8, Trap::Abort { address: FAR }),
        ];
        for (name, esr, expected) in table {
            assert_eq!(Trap::decode(esr, FAR, HPFAR), expected, "{name}");
        }
    }

    #[test]
    fn a_translation_fault_names_its_page() {
        assert_eq!(unmapped_page(data(0), HPFAR), Some(ADDRESS & !0xfff));
        // A permission fault, and an external abort.
        assert_eq!(unmapped_page(data(0) ^ 0x8, HPFAR), None);
        assert_eq!(unmapped_page(data(0) & !0x3f | 0b01_0000, HPFAR), None);
    }

    #[test]
    fn a_store_to_read_only_memory_is_recognized() {
        const STORE: u64 = 1 << 6;
        let denied = data(0b00_1000);
        assert!(is_store_to_rom(denied | STORE));
        assert_eq!(unmapped_store(denied | STORE, ADDRESS), (data(STORE), HPFAR));
        for other in [denied, denied | STORE | 1 << 7, data(STORE), (denied | STORE) & !(4 << 26)] {
            assert!(!is_store_to_rom(other), "{other:#x}");
        }
    }

    #[test]
    fn debug_registers_are_recognized() {
        for (packed, is_debugging) in [(0x8002, true), (0x8085, true), (0xc65d, false)] {
            let encoding = SysRegEncoding::from_packed(packed);
            let access = RegisterAccess { encoding, register: 0, is_read: true };
            assert_eq!(access.is_debugging(), is_debugging, "{packed:#x}");
        }
    }

    #[test]
    fn byte_order_follows_pstate_and_sctlr() {
        use ByteOrder::{Big, Little};
        const EL1H: u64 = 0b0101;
        const EL1T: u64 = 0b0100;
        const USER_A32: u64 = 0b1_0000;
        for (pstate, sctlr, order) in [
            (EL1H, 0, Little),
            (EL1H, EE, Big),
            (EL1T, EE, Big),
            (EL1H, E0E, Little),
            (0, E0E, Big),
            (0, EE, Little),
            (USER_A32, EE | E0E, Little),
            (USER_A32 | 1 << 9, 0, Big),
        ] {
            assert_eq!(ByteOrder::of(pstate, sctlr), order, "{pstate:#x} {sctlr:#x}");
        }
        let value = 0x1122_3344_5566_7788;
        for (bytes, swapped) in
            [(1, 0x88), (2, 0x8877), (4, 0x8877_6655), (8, 0x8877_6655_4433_2211)]
        {
            let width = AccessWidth::try_from(bytes).expect("the width is valid");
            assert_eq!(Big.convert(value, width), swapped);
            assert_eq!(Big.convert(swapped, width), value & width.mask());
            assert_eq!(Little.convert(value, width), value);
        }
    }

    #[test]
    fn an_emulated_instruction_advances_the_vcpu() {
        const LONG: u64 = 1 << 25;
        const T32: u64 = 0b11_0000;
        /// PSTATE.IT from its eight bits.
        const fn it(bits: u64) -> u64 {
            (bits & 0xfc) << 8 | (bits & 3) << 25
        }
        for (pstate, esr, length, after) in [
            (0b0101, LONG, 4, 0b0101),
            (SINGLE_STEP | 0b0101, LONG, 4, 0b0101),
            (T32, 0, 2, T32),
            (T32 | SINGLE_STEP, 0, 2, T32),
            (T32 | it(0b0000_0110), 0, 2, T32 | it(0b0000_1100)),
            (T32 | it(0b0001_1001), 0, 2, T32 | it(0b0001_0010)),
            (T32 | it(0b1110_1000), 0, 2, T32),
        ] {
            let found = advanced(0x1000, pstate, esr);
            assert_eq!(found, (0x1000 + length, after), "{pstate:#x}");
            assert_eq!(is_simple(pstate, 0), (length, after) == (4, pstate), "{pstate:#x}");
            assert!(!is_simple(pstate, E0E) && !is_simple(pstate, EE));
        }
    }

    #[test]
    fn a_loaded_value_is_extended() {
        let value = 0xffff_ffff_ffff_8081;
        for (extension, bytes, expected) in [
            (Extension::Zero, 1, 0x81),
            (Extension::Zero, 8, value),
            (Extension::Sign32, 1, 0xffff_ff81),
            (Extension::Sign32, 2, 0xffff_8081),
            (Extension::Sign64, 2, value),
            (Extension::Sign64, 4, value),
        ] {
            let width = AccessWidth::try_from(bytes).expect("the width is valid");
            assert_eq!(extension.apply(value, width), expected, "{extension:?} {bytes}");
        }
    }
}
