//! `postroad log check` and `postroad log repair`: look at a log without the server, and accept a loss knowingly.

use std::collections::BTreeSet;
use std::io;

use base::Sequence;
use postroad_base as base;

use super::commit::HEADER_BYTES;
use super::recover::{RecoverError, Survey, for_each_record, survey};
use super::{LogId, SegmentDirectory, SegmentNumber};

/// Something wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub segment: SegmentNumber,
    /// Where in it.
    pub offset: u64,
    /// What, in words.
    pub text: String,
}

/// What a look at a log found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// Segment files.
    pub segments: usize,
    /// Commits that recovery replays.
    pub commits: usize,
    /// Records in them.
    pub records: u64,
    /// Sequence of the last of them.
    pub last: Sequence,
    /// Commits that a crash cut short at the end of the log: normal, recovery cuts them off.
    pub torn: Vec<Problem>,
    /// Why recovery would refuse. Empty: it would not.
    pub problems: Vec<Problem>,
    /// Commits that `repair` took out, or would: they are whole, but what comes before them is missing.
    pub cut: Vec<Problem>,
}

impl Report {
    /// Whether the server would open the log.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Looks at the log and changes nothing.
///
/// # Errors
/// If the files can't be read, or a newer release wrote them.
pub fn check(files: &dyn SegmentDirectory, log: LogId, covered: Sequence) -> Result<Report, RecoverError> {
    let survey = survey(files, log, covered)?;
    report(files, &survey)
}

/// Cuts the log at its first gap. Each segment that it changes goes to `quarantine` first, whole.
///
/// # Errors
/// As [`check`], and if writing fails. Then nothing that recovery could use is lost: do it again.
pub fn repair(
    files: &mut dyn SegmentDirectory,
    log: LogId,
    covered: Sequence,
    quarantine: &mut dyn FnMut(SegmentNumber, &[u8]) -> io::Result<()>,
) -> Result<Report, RecoverError> {
    let survey = survey(files, log, covered)?;
    let report = report(files, &survey)?;
    let cut: Vec<_> = survey.beyond.iter().chain(&survey.torn).collect();
    let changed: BTreeSet<_> = cut.iter().map(|commit| commit.segment).collect();
    for segment in &changed {
        quarantine(*segment, &files.read(*segment)?)?;
    }
    for commit in cut {
        files.write(commit.segment, commit.found.offset, &[0; HEADER_BYTES])?;
    }
    changed.into_iter().try_for_each(|segment| files.sync(segment))?;
    Ok(report)
}

fn report(files: &dyn SegmentDirectory, survey: &Survey) -> Result<Report, RecoverError> {
    let problem = |commit: &super::recover::Located, text: String| Problem {
        segment: commit.segment,
        offset: commit.found.offset,
        text,
    };
    let mut report = Report {
        segments: survey.segments.len(),
        commits: survey.chain.len(),
        last: Sequence(survey.next.0 - 1),
        ..Report::default()
    };
    report.torn = survey
        .torn
        .iter()
        .map(|torn| problem(torn, format!("commit of records from {} on is not whole", torn.found.header.first.0)))
        .collect();
    report.cut = survey
        .beyond
        .iter()
        .map(|cut| problem(cut, format!("whole commit of records {} to {}", cut.found.header.first.0, cut.last())))
        .collect();
    if let Some(damage) = survey.damage() {
        let (segment, offset) = place(&damage);
        report.problems.push(Problem { segment, offset, text: damage.to_string() });
    }
    for commit in &survey.chain {
        let bytes = files.read(commit.segment)?;
        let read = for_each_record(&bytes, commit, &mut |_, _| report.records += 1);
        if let Err(error) = read {
            report.problems.push(problem(commit, error.to_string()));
        }
    }
    Ok(report)
}

fn place(error: &RecoverError) -> (SegmentNumber, u64) {
    match error {
        RecoverError::Gap { segment, offset, .. }
        | RecoverError::Overlap { segment, offset, .. }
        | RecoverError::Record { segment, offset, .. } => (*segment, *offset),
        RecoverError::Newer { segment, .. } => (*segment, 0),
        RecoverError::Io(_) => (SegmentNumber(0), 0),
    }
}
