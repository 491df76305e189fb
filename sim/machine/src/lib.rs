//! A machine in one process, built from a firmware description, on which Doorbell's unmodified
//! drivers run against Doorbell's unmodified models. The verdict is based on what the devices sent
//! and what their handlers saw, never on the models' own counters.
//!
//! ```text
//!  Description ── build ──▶ Machine ── run ──────▶ Report    a thread for each CPU and each device
//!                                 └─── simulate ──▶ Report    one thread, one seed
//!
//!  system (drivers, devices) ── Platform, Host, Mmio ──▶ doorbell_hardware ◀── model (vgic)
//!  cpu (the trap loop) ◀──────── IAR, EOIR ────────────▶ vCPU ── kick ──▶ cpu::Sleepers
//!  ledger ◀── messages sent, handler runs, moves
//!  trace ◀─── the same and commands, kicks, sleep: recorded on request
//! ```
//!
//! Drivers and models communicate only through registers and memory. Each message carries a
//! sequence number in memory, so each handler run can be checked against the messages sent, and
//! against the CPUs that the vector targeted at that time.
//!
//! # Example
//!
//! ```
//! use doorbell_machine::{BuildOptions, RunOptions, build, embedded, run};
//!
//! let embedded = embedded::machine("harbour").expect("the machine is embedded in the crate");
//! let description = embedded.firmware.describe()?;
//! let machine = build(&description, &BuildOptions::default())?;
//! let options = RunOptions { messages: 10, ..RunOptions::default() };
//! let report = run(machine, &options, &mut |progress| {
//!     eprintln!("{} of {}", progress.sent, progress.total);
//! })?;
//! assert_eq!(report.totals.sent, report.totals.vectors * 10);
//! assert!(report.totals.is_clean());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod attack;
mod cpu;
mod disturbance;
pub mod embedded;
mod error;
mod fault;
mod latency;
mod ledger;
mod machine;
mod migration;
mod model;
#[cfg(test)]
mod readme;
mod report;
mod rng;
mod run;
pub mod sequential;
mod simulate;
mod system;
mod trace;

pub use attack::{AttackReport, IommuPages, attack};
pub use disturbance::Disturbance;
pub use doorbell_hardware::pci::{AddressWidth, Signaled, StoreConfig};
pub use doorbell_hardware::platform_device::PlatformDeviceConfig;
pub use error::RunError;
pub use fault::Fault;
pub use latency::Latency;
pub use machine::{
    BuildOptions, ChosenDevices, ChosenFunction, ControllerChoice, DeviceConfig, DeviceInfo,
    FunctionPlacement, LpiDisabling, LpiNumbers, Machine, Omission, Population, Refusal,
    SecurityView, Snooping, TargetAddresses, build,
};
pub use migration::Migration;
/// The types that make up a run's report and its trace.
pub use msi_types::{
    Cpu, Delivery, DeviceId, HwIrq, Isolation, MsiMessage, RequesterId, trace::Event,
};
pub use report::{ControllerReport, DeviceKind, DeviceReport, Report, Totals, VectorReport};
pub use run::{Progress, RunOptions, run};
pub use simulate::simulate;
pub use trace::{Occurrence, Record, Recorder, Subject, Trace, TraceTime};
