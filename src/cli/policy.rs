//! `pipeline policy`: the requirements of a target for every run.

use serde_json::json;

use super::args::{Global, Output, PolicyCommand, Requirement};
use super::output::{json, print};
use crate::error::{Error, Result};
use crate::run::OpenPipeline;
use crate::safeguard::Window;
use crate::spec::WindowSpec;
use crate::target::{Access, Policy};

/// Sets the policy if requested, and prints it.
pub(super) async fn policy(global: &Global, command: PolicyCommand) -> Result<u8> {
    let (file, access) = match &command {
        PolicyCommand::Show { file } => (file.clone(), Access::Read),
        PolicyCommand::Set { file, .. } => (file.clone(), Access::Administer),
    };
    let opened = OpenPipeline::open(&global.request(&file), access).await?;
    let target = opened.target.as_ref();
    let policy = async {
        let mut policy = target.policy().await?;
        if let PolicyCommand::Set { conversion_mode, approvals, max_key_block, window, .. } = command {
            if let Some(whether) = conversion_mode {
                policy.conversion_mode = whether == Requirement::Required;
            }
            policy.approvals = approvals.unwrap_or(policy.approvals);
            policy.max_key_block = max_key_block.unwrap_or(policy.max_key_block);
            match (window, &policy.unreadable_window) {
                (Some(window), _) => policy.window = parse_window(&window)?,
                (None, None) => {}
                (None, Some(stored)) => {
                    let message = format!("the window of the target's policy cannot be read: `{stored}`");
                    return Err(Error::usage(message).hint("name the window as well: `--window none`, or another one"));
                }
            }
            target.set_policy(&policy).await?;
            policy = target.policy().await?;
        }
        Ok(policy)
    };
    let policy = policy.await.map_err(|error: Error| error.masked(&opened.document.secrets))?;
    print(&match global.output {
        Output::Json => json(&value(&policy))?,
        Output::Text | Output::Github => text(&policy, &opened.shown)?,
    })?;
    Ok(0)
}

/// Parses `[DAYS ]HH:MM-HH:MM ZONE`, or `none`.
fn parse_window(text: &str) -> Result<Option<WindowSpec>> {
    if text == "none" {
        return Ok(None);
    }
    let invalid = || {
        Error::usage(format!("invalid window: `{text}`"))
            .hint("write `22:00-06:00 Europe/Berlin`, `sat,sun 00:00-23:59 UTC`, or `none`")
    };
    let parts: Vec<&str> = text.split_whitespace().collect();
    let (days, times, timezone) = match parts.as_slice() {
        [times, zone] => (None, *times, *zone),
        [days, times, zone] => (Some(days.split(',').collect::<Vec<_>>()), *times, *zone),
        _ => return Err(invalid()),
    };
    let (from, to) = times.split_once('-').ok_or_else(invalid)?;
    let mut spec = json!({ "from": from, "to": to, "timezone": timezone });
    if let Some(days) = days {
        spec["days"] = json!(days);
    }
    let spec: WindowSpec = serde_json::from_value(spec).map_err(|_| invalid())?;
    // A window that never opens would reject every run without a reason.
    if from == to || spec.days.as_ref().is_some_and(Vec::is_empty) {
        return Err(invalid());
    }
    Window::try_new(&spec)?;
    Ok(Some(spec))
}

fn text(policy: &Policy, target: &str) -> Result<String> {
    let window = match (&policy.window, &policy.unreadable_window) {
        (Some(window), _) => Window::try_new(window)?.to_string(),
        (None, Some(stored)) => format!("cannot be read: `{stored}`"),
        (None, None) => "at any time".to_owned(),
    };
    let mode = if policy.conversion_mode { "required" } else { "not required" };
    Ok(format!(
        "{target} requires of every run:\n  conversion mode  {mode}\n  approvals        {}\n  max key block    {}\n  window           {window}\n",
        policy.approvals, policy.max_key_block
    ))
}

fn value(policy: &Policy) -> serde_json::Value {
    json!({
        "version": 1, "conversion_mode": policy.conversion_mode, "approvals": policy.approvals,
        "max_key_block": policy.max_key_block, "window": policy.window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_parsed_with_its_days_and_zone() {
        let window = parse_window("sat,sun 22:00-06:00 Europe/Berlin").unwrap().unwrap();
        assert_eq!(Window::try_new(&window).unwrap().to_string(), "sat, sun, 22:00 to 06:00 Europe/Berlin");
        assert!(parse_window("22:00-06:00 UTC").unwrap().unwrap().days.is_none());
        assert!(parse_window("none").unwrap().is_none());
        for invalid in
            ["", "22:00 UTC", "22:00-22:00 UTC", "22-6 UTC", "caturday 22:00-06:00 UTC", "22:00-06:00 Mars/Olympus"]
        {
            assert!(parse_window(invalid).is_err(), "{invalid}");
        }
    }
}
