//! `pipeline mode`: the switch and the status of conversion mode.

use serde_json::json;

use super::args::{Global, ModeCommand, Output};
use super::output::{json, print};
use crate::error::{Error, Result};
use crate::run::OpenPipeline;
use crate::safeguard::lasting;
use crate::target::{Access, Mode, Switch, shown};

/// Switches conversion mode unless `status` is requested, and prints its state.
pub(super) async fn mode(global: &Global, command: ModeCommand) -> Result<u8> {
    let (file, switch) = match command {
        ModeCommand::On { file, time, reason, keep } => (file, Some(Switch::On { time, reason, keep })),
        ModeCommand::Off { file, reason } => (file, Some(Switch::Off { reason })),
        ModeCommand::Status { file } => (file, None),
    };
    if let Some(Switch::On { reason, .. } | Switch::Off { reason: Some(reason) }) = &switch
        && reason.trim().is_empty()
    {
        return Err(Error::usage("the reason is empty").hint("state a reason for the mode's history: `--reason TEXT`"));
    }
    let access = if switch.is_some() { Access::Administer } else { Access::Read };
    let opened = OpenPipeline::open(&global.request(&file), access).await?;
    let target = opened.target.as_ref();
    let mode = async {
        if let Some(switch) = &switch {
            target.switch_mode(switch).await?;
        }
        target.mode().await
    };
    let mode = mode.await.map_err(|error| error.masked(&opened.document.secrets))?;
    print(&match global.output {
        Output::Json => json(&value(&mode, opened.safeguards.requires_mode))?,
        Output::Text | Output::Github => text(&mode, &opened.shown, opened.safeguards.requires_mode),
    })?;
    Ok(0)
}

fn text(mode: &Mode, target: &str, is_required: bool) -> String {
    let mut text = match (mode.on(), &mode.last) {
        (Some(on), _) => {
            let end = if on.keep { "even after a run ends (--keep)" } else { "or until the next run ends" };
            let (until, left) = (shown(on.until), lasting(on.until.duration_since(mode.now)));
            format!("conversion mode of {target} is on until {until} ({left} left), {end}\n")
        }
        (None, _) => format!("conversion mode of {target} is off: {}\n", mode.off()),
    };
    if let Some(last) = &mode.last {
        text.extend(["  ", &last.by, " switched it on ", &shown(last.since), ": ", &last.reason, "\n"]);
    }
    if !is_required {
        text += "  neither the target nor this pipeline file requires it\n";
    }
    text
}

fn value(mode: &Mode, is_required: bool) -> serde_json::Value {
    let last = mode.last.as_ref().map(|last| {
        let ended = last.ended.as_ref().map(
            |ended| json!({ "at": ended.at.to_string(), "by": ended.by, "run": ended.run, "reason": ended.reason }),
        );
        json!({
            "since": last.since.to_string(), "until": last.until.to_string(), "by": last.by, "reason": last.reason,
            "keep": last.keep, "ended": ended,
        })
    });
    json!({
        "version": 1, "on": mode.on().is_some(), "required": is_required, "now": mode.now.to_string(), "last": last,
    })
}
