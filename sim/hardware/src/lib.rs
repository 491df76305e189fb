//! A machine's hardware in one process: RAM, a bus, PCI functions with real configuration space,
//! platform devices, an IOMMU, x86's local APICs, and Hyper-V's virtual PCI bus. For each device,
//! the package also has the driver side, which accesses the device only through registers and
//! memory.
//!
//! ```text
//!  driver side              │ hardware side
//!  pci::enumerate, stores   │ pci, platform_device ── messages ──▶ iommu ─▶ bus::Doorbells
//!   │                       │  ▲
//!   ▼                       │  │
//!  platform ── CpuBus ──────┼─▶ bus
//!   └── tables ─────────────┼─▶ ram (and what caches hide of it)
//! ```
#![forbid(unsafe_code)]

pub mod bridge_msi;
pub mod bus;
pub mod hyperv;
pub mod iommu;
pub mod lock;
pub mod pci;
pub mod platform;
pub mod platform_device;
pub mod ram;
pub mod x86;
