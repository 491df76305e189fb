//! PSCI 1.1 (DEN 0022) and SMCCC 1.1 (DEN 0028) for the guest, by HVC or SMC.

use crate::guest::Guest;
use crate::power::{End, Next};
use el2_cpu::Start;
use smccc::arch::{SMCCC_ARCH_FEATURES, SMCCC_VERSION};
use smccc::psci::error::{ALREADY_ON, DENIED, INVALID_PARAMETERS, NOT_SUPPORTED, SUCCESS};
use smccc::psci::{
    PSCI_AFFINITY_INFO_32, PSCI_AFFINITY_INFO_64, PSCI_CPU_OFF, PSCI_CPU_ON_32, PSCI_CPU_ON_64,
    PSCI_CPU_SUSPEND_32, PSCI_CPU_SUSPEND_64, PSCI_FEATURES, PSCI_MIGRATE_INFO_TYPE,
    PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_SYSTEM_SUSPEND_64, PSCI_VERSION,
};

/// Level of the largest affinity instances.
const HIGHEST_LEVEL: u64 = 3;
/// Values that AFFINITY_INFO returns.
const ON: i32 = 0;
const OFF: i32 = 1;

/// Returns `true` if [`call`] implements the function.
fn is_known(number: u32) -> bool {
    matches!(
        number,
        PSCI_CPU_SUSPEND_32
            | PSCI_CPU_SUSPEND_64
            | PSCI_CPU_OFF
            | PSCI_CPU_ON_32
            | PSCI_CPU_ON_64
            | PSCI_AFFINITY_INFO_32
            | PSCI_SYSTEM_OFF
            | PSCI_SYSTEM_RESET
            | PSCI_SYSTEM_SUSPEND_64
    ) || is_query(number) && number != SMCCC_ARCH_FEATURES
}

/// Returns `true` if the function does not change any state.
pub(crate) fn is_query(number: u32) -> bool {
    matches!(
        number,
        SMCCC_VERSION
            | SMCCC_ARCH_FEATURES
            | PSCI_VERSION
            | PSCI_FEATURES
            | PSCI_AFFINITY_INFO_64
            | PSCI_MIGRATE_INFO_TYPE
    )
}

/// Calls the function in x0, and returns its value there if the vCPU continues. A suspended machine
/// wakes up at once: the vCPU then starts.
pub(crate) fn call(guest: &Guest, registers: &mut [u64; 31]) -> Next {
    let [number, first, second, third, ..] = *registers;
    registers[0] = match number as u32 {
        SMCCC_VERSION | PSCI_VERSION => 1 << 16 | 1,
        PSCI_CPU_SUSPEND_32 | PSCI_CPU_SUSPEND_64 => {
            registers[0] = status(SUCCESS);
            return Next::Wait;
        }
        PSCI_CPU_OFF => return Next::Off(None),
        PSCI_SYSTEM_SUSPEND_64 if guest.vcpus_on() > 1 => status(DENIED),
        PSCI_SYSTEM_SUSPEND_64 => {
            return Next::Off(Some(Start { entry: first, argument: second }));
        }
        PSCI_CPU_ON_32 => {
            let low = |value: u64| u64::from(value as u32);
            status(cpu_on(guest, low(first), low(second), low(third)))
        }
        PSCI_CPU_ON_64 => status(cpu_on(guest, first, second, third)),
        PSCI_AFFINITY_INFO_32 | PSCI_AFFINITY_INFO_64 => {
            status(affinity_info(guest, first, second))
        }
        // There's no trusted OS to migrate.
        PSCI_MIGRATE_INFO_TYPE => 2,
        PSCI_SYSTEM_OFF => return Next::End(End::Off),
        PSCI_SYSTEM_RESET => return Next::End(End::Reset),
        PSCI_FEATURES if is_known(first as u32) => status(SUCCESS),
        SMCCC_ARCH_FEATURES if is_architectural(first as u32) => status(SUCCESS),
        _ => status(NOT_SUPPORTED),
    };
    Next::Resume
}

/// Returns `true` for SMCCC_VERSION and SMCCC_ARCH_FEATURES. `SMCCC_ARCH_WORKAROUND_<n>` is not
/// implemented.
fn is_architectural(number: u32) -> bool {
    matches!(number, SMCCC_VERSION | SMCCC_ARCH_FEATURES)
}

fn status(status: i32) -> u64 {
    i64::from(status).cast_unsigned()
}

fn cpu_on(guest: &Guest, mpidr: u64, entry: u64, argument: u64) -> i32 {
    let Some(cpu) = guest.cpu_of(mpidr) else { return INVALID_PARAMETERS };
    if guest.start(cpu, Start { entry, argument }) { SUCCESS } else { ALREADY_ON }
}

/// Implements AFFINITY_INFO: an affinity instance is on if any of its CPUs is on. The devicetree is
/// compatible with PSCI 0.2, which requires all four levels (DEN 0022, 5.7).
fn affinity_info(guest: &Guest, mpidr: u64, level: u64) -> i32 {
    if level > HIGHEST_LEVEL {
        return INVALID_PARAMETERS;
    }
    match guest.cpus_of(mpidr, level as u32).map(|cpu| guest.power.is_on(cpu)).reduce(|a, b| a || b)
    {
        Some(true) => ON,
        Some(false) => OFF,
        None => INVALID_PARAMETERS,
    }
}
