//! Writes the file of `doorbell run --trace`, in Chrome's trace format for viewers such as
//! Perfetto.

mod chrome;
#[cfg(test)]
mod tests;
mod timeline;
mod tracks;

use crate::cli::WorkloadArgs;
use crate::print;
use anyhow::{Context, Result};
use doorbell_machine::{Recorder, Report, TraceTime};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum number of events in a trace. The default run of the first embedded machine records about
/// 1.1 million events.
const LIMIT: u64 = 2_000_000;

/// Creates the recorder for a run with these options.
pub(crate) fn recorder(args: &WorkloadArgs) -> Arc<Recorder> {
    let time = if args.simulate { TraceTime::Steps } else { TraceTime::Nanoseconds };
    Recorder::new(time, LIMIT)
}

/// File to which a trace is written.
pub(crate) struct TraceFile<'a> {
    path: &'a Path,
    /// The file beside `path` that is renamed when it is complete; `None` if `path` is no regular
    /// file, such as a pipe.
    part: Option<PathBuf>,
    file: File,
    recorder: Arc<Recorder>,
}

impl<'a> TraceFile<'a> {
    /// Creates the file beside its final path, so that an interrupted run leaves an earlier trace
    /// as it was. Should be called before the run, so that the run does not start if its trace
    /// can't be written.
    pub(crate) fn create(path: &'a Path, recorder: Arc<Recorder>) -> Result<Self> {
        let is_regular = path.symlink_metadata().map_or(true, |old| old.is_file());
        let part = is_regular.then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(".part");
            PathBuf::from(name)
        });
        let file = File::create(part.as_deref().unwrap_or(path));
        let file = file.with_context(|| cannot_write(path))?;
        Ok(Self { path, part, file, recorder })
    }

    /// Writes the recorded events of a run. `report` is the report of the same run.
    pub(crate) fn write(self, report: &Report) -> Result<()> {
        let trace = self.recorder.take();
        let mut out = BufWriter::new(self.file);
        let written = timeline::write(&mut out, &trace, report).and_then(|()| out.flush());
        let renamed = written.and_then(|()| match &self.part {
            Some(part) => fs::rename(part, self.path),
            None => Ok(()),
        });
        renamed.with_context(|| cannot_write(self.path))?;
        if trace.left_out > 0 {
            print::tell(format_args!(
                "{}: the trace contains the first {LIMIT} events; {} more were left out",
                self.path.display(),
                trace.left_out
            ));
        }
        Ok(())
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
