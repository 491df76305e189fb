//! A fake CPU interface's registers.

use super::board::Board;
use crate::interleaving;
use doorbell_test_support::Outside;
use gic_arch::icc::{self, Ctlr, Sgi, Sre, SreEl2, SysRegEncoding};
use gic_driver::{ExceptionLevel, SystemRegisters};
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// A CPU's system registers. Clones access the same registers.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeRegisters {
    state: Arc<Mutex<RegisterState>>,
    /// The machine, and the CPU whose redistributor signals LPIs to this interface.
    lpis: Option<(Board, u32)>,
}

#[derive(Debug, Default)]
pub(super) struct RegisterState {
    values: BTreeMap<SysRegEncoding, u64>,
    pending: VecDeque<u32>,
    running: Vec<u32>,
    deactivated: Vec<u32>,
    sgis: Vec<Sgi>,
    /// `true` if a higher exception level denies access to the system registers.
    sre_fixed: bool,
    /// `true` if the mask has the Non-secure view of priorities.
    shifted_mask: bool,
    /// `true` if software runs at EL2.
    hypervisor: bool,
    /// `true` if the next acknowledge returns an interrupt that does not become active.
    unsynchronized: bool,
}

/// Read-only fields of `ICC_CTLR_EL1`: five priority bits, range selector, Aff3 and extended
/// ranges.
const FEATURES: u64 = 4 << 8 | 1 << 18 | 1 << 15 | EXTENDED_RANGE;
const EXTENDED_RANGE: u64 = 1 << 19;

impl FakeRegisters {
    /// Returns the registers for one of a machine's CPUs.
    pub(super) fn of(state: Arc<Mutex<RegisterState>>, board: Board, cpu: u32) -> Self {
        Self { state, lpis: Some((board, cpu)) }
    }

    fn state(&self) -> MutexGuard<'_, RegisterState> {
        self.state.lock().unwrap()
    }

    /// Returns the LPI that the redistributor signals. Must be called without holding the state's
    /// lock.
    fn signaled(&self) -> Option<u32> {
        let (board, cpu) = self.lpis.as_ref()?;
        interleaving::access();
        board.world().rd(*cpu).signaled()
    }

    /// Acknowledges the LPI that the redistributor signals.
    fn take_lpi(&self) -> Option<u32> {
        let (board, cpu) = self.lpis.as_ref()?;
        let mut world = board.world();
        let redistributor = world.rd(*cpu);
        let lpi = redistributor.signaled()?;
        redistributor.pending.remove(&lpi);
        Some(lpi)
    }

    pub(crate) fn without_system_registers() -> Self {
        let fake = Self::default();
        fake.state().sre_fixed = true;
        fake
    }

    pub(crate) fn with_shifted_mask() -> Self {
        let fake = Self::default();
        fake.state().shifted_mask = true;
        fake
    }

    pub(crate) fn at_el2() -> Self {
        let fake = Self::default();
        fake.state().hypervisor = true;
        fake
    }

    /// Removes the CPU interface's support for extended INTID ranges.
    pub(crate) fn without_extended_range() -> Self {
        let fake = Self::default();
        fake.set(icc::CTLR.encoding(), FEATURES & !EXTENDED_RANGE);
        fake
    }

    /// Makes the next acknowledge return the next interrupt without making it active.
    pub(crate) fn lose_synchronization(&self) {
        self.state().unsynchronized = true;
    }

    /// Resets all registers, as on power loss.
    pub(crate) fn reset(&self) {
        let state = &mut *self.state();
        state.values.clear();
        state.running.clear();
    }

    /// Overrides a register. The read-only feature fields of `ICC_CTLR_EL1` can be overridden, too.
    pub(crate) fn set(&self, register: SysRegEncoding, value: u64) {
        self.state().values.insert(register, value);
    }

    pub(crate) fn get(&self, register: SysRegEncoding) -> u64 {
        self.state().values.get(&register).copied().unwrap_or(0)
    }

    pub(crate) fn raise(&self, intid: u32) {
        self.state().pending.push_back(intid);
    }

    pub(crate) fn running(&self) -> Vec<u32> {
        self.state().running.clone()
    }

    pub(crate) fn deactivated(&self) -> Vec<u32> {
        self.state().deactivated.clone()
    }

    pub(crate) fn sgis(&self) -> Vec<Sgi> {
        self.state().sgis.clone()
    }

    fn control(state: &RegisterState) -> u64 {
        state.values.get(&icc::CTLR.encoding()).copied().unwrap_or(FEATURES)
    }
}

impl RegisterState {
    fn value(&self, register: SysRegEncoding) -> u64 {
        self.values.get(&register).copied().unwrap_or(0)
    }

    /// Asserts that a register is accessible. At EL2, `ICC_SRE_EL2.SRE` makes the registers
    /// accessible; without it, `ICC_SRE_EL1.SRE` is RAZ/WI.
    fn check_reachable(&self, register: SysRegEncoding) {
        if self.hypervisor && register != icc::SRE.encoding() {
            let sre = SreEl2::from(self.value(icc::SRE_EL2.encoding()));
            assert!(sre.sre(), "a register is used at EL2 before ICC_SRE_EL2.SRE is set");
        }
    }
}

impl SystemRegisters for FakeRegisters {
    fn exception_level(&self) -> ExceptionLevel {
        if self.state().hypervisor { ExceptionLevel::El2 } else { ExceptionLevel::El1 }
    }

    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        let _outside = Outside::new();
        if register == icc::IAR1.encoding() && self.lpis.is_some() {
            interleaving::access();
        }
        let signaled =
            (register == icc::HPPIR1.encoding()).then(|| self.signaled()).flatten().unwrap_or(1023);
        let state = &mut *self.state();
        if register == icc::SRE_EL2.encoding() {
            assert!(state.hypervisor, "ICC_SRE_EL2 is UNDEFINED at EL1");
            return state.value(register);
        }
        state.check_reachable(register);
        if register == icc::IAR1.encoding() {
            if std::mem::take(&mut state.unsynchronized) {
                return state.pending.front().map_or(1023, |intid| (*intid).into());
            }
            let Some(intid) = state.pending.pop_front().or_else(|| self.take_lpi()) else {
                return 1023;
            };
            state.running.push(intid);
            return intid.into();
        }
        if register == icc::AP1R0.encoding() {
            // Each running interrupt has one active priority.
            return state.value(register) | ((1 << state.running.len()) - 1);
        }
        if register == icc::HPPIR1.encoding() {
            return state.pending.front().copied().unwrap_or(signaled).into();
        }
        if register == icc::CTLR.encoding() {
            return Self::control(state);
        }
        let write_only = [icc::EOIR1.encoding(), icc::DIR.encoding(), icc::SGI1R.encoding()];
        assert!(!write_only.contains(&register), "a write-only register must not be read");
        state.values.get(&register).copied().unwrap_or(0)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        let _outside = Outside::new();
        let state = &mut *self.state();
        let enabled = |state: &RegisterState| {
            Sre::from(state.values.get(&icc::SRE.encoding()).copied().unwrap_or(0)).sre()
        };
        if register == icc::SRE_EL2.encoding() {
            assert!(state.hypervisor, "ICC_SRE_EL2 is UNDEFINED at EL1");
            state.values.insert(register, if state.sre_fixed { 0 } else { value });
            return;
        }
        state.check_reachable(register);
        if register == icc::SRE.encoding() {
            let blocked =
                state.hypervisor && !SreEl2::from(state.value(icc::SRE_EL2.encoding())).sre();
            let value = if state.sre_fixed || blocked { 0 } else { value };
            state.values.insert(register, value);
            return;
        }
        assert!(enabled(state), "a register is used before SRE is set");
        let split = Ctlr::from(Self::control(state)).eoi_mode();
        if register == icc::EOIR1.encoding() {
            let ended = u32::try_from(value).unwrap();
            assert_eq!(
                state.running.pop(),
                Some(ended),
                "interrupts must be ended in reverse order"
            );
            if !split && ended < 8192 {
                state.deactivated.push(ended);
            }
        } else if register == icc::DIR.encoding() {
            assert!(split, "DIR is written although EOIR deactivates");
            assert!(value < 8192, "an LPI must not be deactivated");
            state.deactivated.push(u32::try_from(value).unwrap());
        } else if register == icc::SGI1R.encoding() {
            state.sgis.push(Sgi::from(value));
        } else if register == icc::PMR.encoding() {
            let value = if state.shifted_mask { value & 0xf0 } else { value & 0xf8 };
            state.values.insert(register, value);
        } else if register == icc::BPR1.encoding() {
            state.values.insert(register, value.max(3));
        } else if [&icc::AP0R[1..], &icc::AP1R[1..]]
            .concat()
            .iter()
            .any(|absent| absent.encoding() == register)
        {
            panic!("with five priority bits, only one active priorities register exists");
        } else if register == icc::AP0R0.encoding() && state.shifted_mask {
            panic!("Group 0 belongs to EL3");
        } else if register == icc::CTLR.encoding() {
            state.values.insert(register, value & !FEATURES | Self::control(state) & FEATURES);
        } else {
            let read_only = [icc::IAR1.encoding(), icc::RPR.encoding(), icc::HPPIR1.encoding()];
            assert!(!read_only.contains(&register), "a read-only register must not be written");
            state.values.insert(register, value);
        }
    }
}
