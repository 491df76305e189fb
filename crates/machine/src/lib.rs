//! A machine in one process: RAM, a bus, CPUs, PCI functions with real configuration space, platform devices and a
//! GICv3 with its ITSes, on which Doorbell's unmodified drivers run against Doorbell's unmodified models.
//!
//! ```text
//!  Description ── build ──▶ Machine ── run ──────▶ Report    a thread for each CPU and each device
//!                                 └─── simulate ──▶ Report    one thread, one seed, a trace
//!
//!  driver side                       │ hardware side
//!  gic-driver, irq-domain            │ vgic
//!   │ Platform, Host, Mmio           │  ▲ register frames, doorbells, guest memory
//!   ▼                                │  │
//!  platform ── cpu_bus ──────────────┼─▶ bus ◀── pci, platform_device ── messages
//!   │                                │  ▲
//!   └── tables ──────────────────────┼─▶ ram (and what caches hide of it)
//!  pci::enumerate (the bus driver)   │
//!  cpu (the trap loop) ◀── IAR/EOIR ─┼── vCPU ── kick ──▶ sleepers
//! ```
//!
//! Both sides meet in registers and memory alone. What a run found out is judged by the devices: each message carries a
//! sequence number in memory, and each handler run is compared with what was sent and with where the vector was routed.
//! The models' own counters take no part in the verdict.
//!
//! # Example
//!
//! ```
//! use doorbell_machine::{BuildOptions, RunOptions, build, embedded, run};
//!
//! let embedded = embedded::machine("harbour").expect("it comes with the crate");
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

mod cpu;
pub mod embedded;
mod error;
mod fault;
mod machine;
pub mod matrix;
mod measure;
mod migration;
mod model;
mod oracle;
#[cfg(test)]
mod readme;
mod report;
mod rng;
mod run;
mod simulate;
mod system;
mod trespass;

pub use error::RunError;
pub use fault::Fault;
pub use machine::{
    BuildOptions, ChosenDevices, ChosenFunction, ControllerChoice, DeviceConfig, DeviceInfo,
    FunctionPlacement, LpiDisabling, LpiNumbers, Machine, Population, Refusal, SecurityView, Snooping,
    TargetAddresses, build,
};
pub use measure::{Case, MeasureError, MeasureOptions, Measurements, Reference, measure};
pub use migration::Migration;
pub use report::{ControllerReport, DeviceKind, DeviceReport, Report, Totals, VectorReport};
pub use run::{CpuHotplug, DeviceHotplug, Disturbances, Moves, Progress, RunOptions, run};
pub use simulate::{Simulation, TraceEvent, simulate};
pub use trespass::{IommuPages, Overwritten, Trespass, trespass};
