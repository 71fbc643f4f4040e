//! Coverage as one HTML page that needs nothing else: every file with its covered and missed lines.

use interlock::policy::Sources;
use interlock::policy::testing::{Coverage, FileCoverage};

const STYLE: &str = "body{font:14px/1.4 sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:.1em .8em;\
                     text-align:left}pre{margin:0;font:13px/1.35 monospace}.c{background:#dff2df}.n{background:#f8d7d7}\
                     .l{color:#777;user-select:none}h2{font-size:1.05em;margin-top:2em}";

pub fn page(coverage: &Coverage, sources: &Sources) -> String {
    let mut rows = String::new();
    let mut files = String::new();
    for file in &coverage.files {
        let name = text(&file.file);
        rows.push_str(&format!(
            "<tr><td><a href=\"#{name}\">{name}</a></td><td>{:.2}%</td><td>{}</td><td>{}</td></tr>\n",
            file.percent(),
            file.not_covered.len(),
            file.rules_not_covered.len()
        ));
        let all = sources.policies.iter().chain(&sources.tests);
        let source = all.filter(|source| source.name == file.file).map(|source| &*source.text).next();
        files.push_str(&format!(
            "<h2 id=\"{name}\">{name}</h2>\n<pre>{}</pre>\n",
            lines(file, source.unwrap_or_default())
        ));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Policy coverage</title><style>{STYLE}</style></head>\n\
         <body><h1>Policy coverage</h1>\n<p>lines {:.2}% ({} of {}), rules {:.2}% ({} of {})</p>\n\
         <table><tr><th>file</th><th>lines</th><th>lines missed</th><th>rules missed</th></tr>\n{rows}</table>\n{files}</body></html>\n",
        coverage.lines(),
        coverage.covered_lines(),
        coverage.covered_lines() + coverage.not_covered_lines(),
        coverage.rules(),
        coverage.covered_rules(),
        coverage.covered_rules() + coverage.not_covered_rules(),
    )
}

fn lines(file: &FileCoverage, source: &str) -> String {
    let mut page = String::new();
    for (number, line) in (1..).zip(source.lines()) {
        let class = match (file.covered.contains(&number), file.not_covered.contains(&number)) {
            (true, _) => " class=\"c\"",
            (false, true) => " class=\"n\"",
            (false, false) => "",
        };
        page.push_str(&format!("<span class=\"l\">{number:>5} </span><span{class}>{}</span>\n", text(line)));
    }
    page
}

fn text(raw: &str) -> String {
    raw.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
