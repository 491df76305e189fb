//! Tools for running the project's suites: processes with a time limit, Debian packages that are
//! unpacked but not installed, QEMU, bare-metal images, small Linux systems, a browser, and a
//! suite's cases.
//!
//! A suite is a test target without libtest. Its `main` passes a list of [`suite::Case`]s to
//! [`suite::run`]:
//!
//! ```
//! use std::time::Duration;
//!
//! use doorbell_harness::suite::{self, Case, OrAbsent, Turns};
//! use doorbell_harness::{process, workspace};
//!
//! fn main() -> std::process::ExitCode {
//!     let case = Case::new("QEMU prints its version", Duration::from_secs(10), || {
//!         let workspace = workspace::this()?;
//!         let mut qemu = process::command("qemu-system-aarch64", &workspace.root);
//!         let version = process::capture(qemu.arg("--version")).or_absent("QEMU")?;
//!         anyhow::ensure!(version.starts_with("QEMU emulator"), "QEMU prints {version}");
//!         Ok(())
//!     });
//!     suite::run(std::env::args_os().collect(), Turns::Parallel, vec![case])
//! }
//! ```
#![forbid(unsafe_code)]

pub mod apt;
pub mod arceos;
pub mod archives;
pub mod browser;
pub mod cache;
pub mod command;
pub mod dtb;
pub mod hang;
pub mod image;
pub mod initramfs;
pub mod linux_checkers;
pub mod linux_kernel;
pub mod linux_module;
pub mod linux_source;
pub mod modules;
pub mod parallel;
pub mod process;
pub mod qemu;
pub mod schemas;
pub mod small_linux;
pub mod source;
pub mod suite;
pub mod system;
pub mod temporary;
pub mod testbench;
pub mod toolchain;
pub mod wasm;
pub mod workspace;
