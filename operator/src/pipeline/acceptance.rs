//! A pipeline's stages and their tests, by the same code as in the processor.

use crds::LogPipelineSpec;
use crds::condition::Reason;
use stages::{Pipeline, run_tests};

/// Failures that a message tells in full; a condition has room for 1 KiB.
const TOLD: usize = 3;

/// Whether the stages can be run and do what the tests say, for lines accepted at `now`.
pub(super) fn check(spec: &LogPipelineSpec, now: i64) -> Result<(), (Reason, String)> {
    let pipeline = Pipeline::compile(&spec.stages)
        .map_err(|error| (Reason::InvalidStages, format!("{error} (code {})", error.code)))?;
    let failures = run_tests(&pipeline, &spec.tests, now);
    if failures.is_empty() {
        return Ok(());
    }
    let mut message: Vec<String> = failures.iter().take(TOLD).map(ToString::to_string).collect();
    if failures.len() > TOLD {
        message.push(format!("and {} more", failures.len() - TOLD));
    }
    Err((Reason::TestsFailed, message.join("; ")))
}

/// The stages as a processor takes them from its environment.
pub(super) fn variable(spec: &LogPipelineSpec) -> Option<String> {
    if spec.stages.is_empty() {
        return None;
    }
    let json = serde_json::to_string(&spec.stages).ok()?;
    // A kubelet takes `$(NAME)` and `$$` in a variable for something else.
    Some(json.replace('$', "\\u0024"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(stages: Value, tests: Value) -> LogPipelineSpec {
        serde_json::from_value(json!({"stages": stages, "tests": tests})).unwrap()
    }

    #[test]
    fn a_pipeline_is_accepted_only_if_its_tests_hold() {
        let stages = json!([{"name": "cards", "redact": {"detectors": ["CardNumber"]}}]);
        let test = |name: &str, message: &str| json!({"name": name, "input": "paid with 4111 1111 1111 1111", "expect": {"fields": {"message": message}}});
        assert_eq!(check(&spec(stages.clone(), json!([test("a", "paid with [card]")])), 0), Ok(()));
        let failing: Vec<Value> = ["a", "b", "c", "d", "e"].map(|name| test(name, "x")).into();
        let (reason, message) = check(&spec(stages, json!(failing)), 0).unwrap_err();
        assert_eq!(reason, Reason::TestsFailed);
        assert!(
            message.starts_with("test `a`: field `message`: expected `x`, got `paid with [card]`; test `b`"),
            "{message}"
        );
        assert!(message.ends_with("; and 2 more"), "{message}");
    }

    #[test]
    fn stages_that_cannot_be_run_are_not_accepted() {
        let stages = json!([{"name": "broken", "parse": {"format": "Regex", "pattern": "(?<a>x"}}]);
        let (reason, message) = check(&spec(stages, json!([])), 0).unwrap_err();
        assert_eq!(reason, Reason::InvalidStages);
        let expected = "spec.stages[0] `broken`: parse.pattern: at character 1: unclosed group (code invalid_regex)";
        assert_eq!(message, expected);
    }

    #[test]
    fn a_variable_holds_nothing_that_a_kubelet_would_change() {
        let stages =
            json!([{"name": "a", "match": {"fields": [{"name": "path", "matches": "^/x$(HOME)$$"}]}, "drop": {}}]);
        let spec = spec(stages, json!([]));
        let variable = variable(&spec).unwrap();
        assert!(!variable.contains('$'), "{variable}");
        assert_eq!(serde_json::from_str::<Vec<stages::Stage>>(&variable).unwrap(), spec.stages);
        assert_eq!(super::variable(&LogPipelineSpec::default()), None);
    }
}
