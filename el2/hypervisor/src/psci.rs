//! PSCI 1.1 (DEN 0022) and SMCCC 1.1 (DEN 0028) for the guest, by HVC and SMC alike.

use crate::guest::Guest;
use crate::power::Start;

/// The result of a call for the vCPU that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// This in x0.
    Value(u64),
    /// To wait for an interrupt, then success.
    Suspend,
    /// To go off.
    Off,
    /// To end the machine.
    End(End),
}

/// End of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_RESET.
    Reset,
    /// No call: an SError, which no device that the guest reaches should cause.
    SystemError,
}

const SUCCESS: i64 = 0;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;

/// Function numbers.
mod function {
    pub(super) const SMCCC_VERSION: u32 = 0x8000_0000;
    pub(super) const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
    pub(super) const VERSION: u32 = 0x8400_0000;
    pub(super) const CPU_SUSPEND_32: u32 = 0x8400_0001;
    pub(super) const CPU_SUSPEND: u32 = 0xc400_0001;
    pub(super) const CPU_OFF: u32 = 0x8400_0002;
    pub(super) const CPU_ON_32: u32 = 0x8400_0003;
    pub(super) const CPU_ON: u32 = 0xc400_0003;
    pub(super) const AFFINITY_INFO_32: u32 = 0x8400_0004;
    pub(super) const AFFINITY_INFO: u32 = 0xc400_0004;
    pub(super) const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub(super) const SYSTEM_OFF: u32 = 0x8400_0008;
    pub(super) const SYSTEM_RESET: u32 = 0x8400_0009;
    pub(super) const FEATURES: u32 = 0x8400_000a;
}

/// Does `Self::call` know the function?
fn is_known(number: u32) -> bool {
    use function::{
        AFFINITY_INFO, AFFINITY_INFO_32, CPU_OFF, CPU_ON, CPU_ON_32, CPU_SUSPEND, CPU_SUSPEND_32,
        FEATURES, MIGRATE_INFO_TYPE, SMCCC_VERSION, SYSTEM_OFF, SYSTEM_RESET, VERSION,
    };
    [
        AFFINITY_INFO,
        AFFINITY_INFO_32,
        CPU_OFF,
        CPU_ON,
        CPU_ON_32,
        CPU_SUSPEND,
        CPU_SUSPEND_32,
        FEATURES,
        MIGRATE_INFO_TYPE,
        SMCCC_VERSION,
        SYSTEM_OFF,
        SYSTEM_RESET,
        VERSION,
    ]
    .contains(&number)
}

/// Does the function change nothing?
pub(crate) fn is_query(number: u32) -> bool {
    use function::{
        AFFINITY_INFO, FEATURES, MIGRATE_INFO_TYPE, SMCCC_ARCH_FEATURES, SMCCC_VERSION, VERSION,
    };
    matches!(
        number,
        SMCCC_VERSION
            | SMCCC_ARCH_FEATURES
            | VERSION
            | FEATURES
            | AFFINITY_INFO
            | MIGRATE_INFO_TYPE
    )
}

/// Answers a call with x0 to x3.
pub(crate) fn call(guest: &Guest, [number, first, second, third]: [u64; 4]) -> Answer {
    let number = number as u32;
    match number {
        function::SMCCC_VERSION | function::VERSION => Answer::Value(1 << 16 | 1),
        function::CPU_SUSPEND_32 | function::CPU_SUSPEND => Answer::Suspend,
        function::CPU_OFF => Answer::Off,
        function::CPU_ON_32 => {
            let low = |value: u64| u64::from(value as u32);
            status(cpu_on(guest, low(first), low(second), low(third)))
        }
        function::CPU_ON => status(cpu_on(guest, first, second, third)),
        function::AFFINITY_INFO_32 | function::AFFINITY_INFO => {
            status(affinity_info(guest, first, second))
        }
        // No trusted operating system has to migrate.
        function::MIGRATE_INFO_TYPE => Answer::Value(2),
        function::SYSTEM_OFF => Answer::End(End::Off),
        function::SYSTEM_RESET => Answer::End(End::Reset),
        function::FEATURES if is_known(first as u32) => status(SUCCESS),
        function::SMCCC_ARCH_FEATURES if is_architectural(first as u32) => status(SUCCESS),
        _ => status(NOT_SUPPORTED),
    }
}

/// SMCCC_VERSION and SMCCC_ARCH_FEATURES: no workaround is offered.
fn is_architectural(number: u32) -> bool {
    matches!(number, function::SMCCC_VERSION | function::SMCCC_ARCH_FEATURES)
}

fn status(status: i64) -> Answer {
    Answer::Value(status.cast_unsigned())
}

fn cpu_on(guest: &Guest, mpidr: u64, entry: u64, argument: u64) -> i64 {
    let Some(cpu) = guest.cpu_of(mpidr) else { return INVALID_PARAMETERS };
    if guest.start(cpu, Start { entry, argument }) { SUCCESS } else { ALREADY_ON }
}

/// Of a single CPU: level 0.
fn affinity_info(guest: &Guest, mpidr: u64, level: u64) -> i64 {
    match (level, guest.cpu_of(mpidr)) {
        (0, Some(cpu)) if guest.power.is_on(cpu) => 0,
        (0, Some(_)) => 1,
        _ => INVALID_PARAMETERS,
    }
}
