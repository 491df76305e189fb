//! Compiles a crate's probes to assembly.

use std::fs;

use anyhow::{Context, Result};
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{process, toolchain};

use crate::assembly::Assembly;

/// Features of the CPU that the code is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// Armv8.0: load-exclusive and store-exclusive, and `LDAR` for every load-acquire.
    V8,
    /// Load-exclusive and store-exclusive, and `LDAPR` for loads that are only Acquire.
    Rcpc,
    /// Armv8.1's atomics, and `LDAPR`.
    Lse,
}

impl Target {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V8 => "v8.0",
            Self::Rcpc => "rcpc",
            Self::Lse => "lse",
        }
    }

    const fn features(self) -> &'static str {
        match self {
            Self::V8 => "-lse,-rcpc",
            Self::Rcpc => "-lse,+rcpc",
            Self::Lse => "+lse,+rcpc",
        }
    }
}

/// Compiles the library `package` for `target`, with its module `memory_model`.
///
/// # Errors
/// Fails if the compiler fails.
pub fn assembly(workspace: &Workspace, package: &str, target: Target) -> Result<Assembly> {
    toolchain::need_target(&workspace.root, toolchain::BARE_TARGET)?;
    // One folder would let cargo compile only one target at a time.
    let folder = workspace.target.join("memory-model").join(target.name());
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{package}.s"));
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["rustc", "--quiet", "--lib", "--release", "--package", package]);
    cargo.args(["--target", toolchain::BARE_TARGET, "--target-dir"]).arg(&folder);
    cargo.args(["--", "--cfg", "memory_model", "-C", "codegen-units=1", "-C", "debuginfo=0"]);
    cargo.arg("-C").arg(format!("target-feature={}", target.features()));
    cargo.arg(format!("--emit=asm={}", file.display()));
    process::capture(&mut cargo).with_context(|| format!("cannot compile {package}"))?;
    Assembly::parse(&fs::read_to_string(file)?)
}
