//! A machine in one process: RAM, a bus, CPUs, PCI functions with real configuration space, platform devices and a
//! GICv3 with its ITSes, on which Doorbell's unmodified drivers run against Doorbell's unmodified models.
#![forbid(unsafe_code)]

pub mod bus;
mod cpu;
pub mod embedded;
mod lock;
mod machine;
mod oracle;
pub mod pci;
mod platform;
pub mod platform_device;
pub mod ram;
mod report;
mod rng;
mod run;
mod simulate;
mod system;

pub use machine::{BuildOptions, Machine, Refusal, SecurityView, Snooping, TargetAddresses, build};
pub use platform::PlatformFault;
pub use report::{ControllerReport, DeviceKind, DeviceReport, ModelCounts, Report, Totals, VectorReport};
pub use run::{CpuLife, DeviceLife, Disturbances, Moves, Progress, RunError, RunOptions, run};
pub use simulate::{Simulation, TraceEvent, simulate};
