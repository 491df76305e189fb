//! Implements `cargo xtask kvm`: compares the model with Linux's KVM for more migration plans than
//! the suite does.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use doorbell_harness::parallel;
use doorbell_harness::qemu::Version;
use doorbell_suites::kvm;

/// Lets Linux's KVM for arm64, nested in QEMU, judge more of the model than the suite does
#[derive(Debug, Parser)]
#[command(name = "cargo xtask kvm", bin_name = "cargo xtask kvm")]
struct Wanted {
    /// Number of plans that migrate between KVM and the model
    #[arg(long, default_value_t = kvm::LONG_PLANS)]
    plans: u32,
}

fn main() -> ExitCode {
    let Wanted { plans } = Wanted::parse();
    let outcomes =
        parallel::on_each_cpu(&Version::ALL, |_, version| kvm::judge(*version, Some(plans)));
    let mut code = ExitCode::SUCCESS;
    for error in outcomes.into_iter().filter_map(Result::err) {
        eprintln!("error: {error:#}");
        code = ExitCode::FAILURE;
    }
    code
}
