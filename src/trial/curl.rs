//! A curl command line as the HTTP/1.1 message that curl would send.
//!
//! In: the command as a person copies it, with a shell's quotes, or its words. Out: the message, or what of it is not
//! known. Options that change how curl connects and what it shows mean nothing here and are passed over; one that
//! this file does not know may change the message, so it is refused by name. What curl would change in the target
//! (dot segments, ranges in braces) is refused too: the message has to be said as it is.

use std::path::Path;

/// Options with a value that say nothing about the message.
const PASSED_OVER_WITH_VALUE: &[&str] = &[
    "--cacert",
    "--capath",
    "--cert",
    "--cert-type",
    "--ciphers",
    "--connect-timeout",
    "--connect-to",
    "--key",
    "--key-type",
    "--limit-rate",
    "--max-time",
    "--noproxy",
    "--output",
    "--pass",
    "--proxy",
    "--resolve",
    "--retry",
    "--retry-delay",
    "--retry-max-time",
    "--stderr",
    "--tls-max",
    "--trace",
    "--trace-ascii",
    "--write-out",
    "--dump-header",
    "--max-redirs",
    "--interface",
    "--local-port",
    "--keepalive-time",
    "--unix-socket",
];

/// Options without one.
const PASSED_OVER: &[&str] = &[
    "--fail",
    "--fail-with-body",
    "--http1.1",
    "--include",
    "--insecure",
    "--ipv4",
    "--ipv6",
    "--location",
    "--no-buffer",
    "--no-keepalive",
    "--no-progress-meter",
    "--path-as-is",
    "--progress-bar",
    "--show-error",
    "--silent",
    "--tcp-nodelay",
    "--tlsv1.2",
    "--tlsv1.3",
    "--verbose",
    "--globoff",
    "--remote-name",
    "--no-sessionid",
    "--http2",
    "--http2-prior-knowledge",
    "--tcp-fastopen",
    "--create-dirs",
    "--ssl-reqd",
];

/// Short options, by the long one they stand for.
const SHORT: &[(char, &str)] = &[
    ('X', "--request"),
    ('H', "--header"),
    ('d', "--data"),
    ('G', "--get"),
    ('I', "--head"),
    ('A', "--user-agent"),
    ('e', "--referer"),
    ('b', "--cookie"),
    ('u', "--user"),
    ('g', "--globoff"),
    ('s', "--silent"),
    ('S', "--show-error"),
    ('k', "--insecure"),
    ('L', "--location"),
    ('i', "--include"),
    ('v', "--verbose"),
    ('f', "--fail"),
    ('N', "--no-buffer"),
    ('4', "--ipv4"),
    ('6', "--ipv6"),
    ('O', "--remote-name"),
    ('o', "--output"),
    ('m', "--max-time"),
    ('x', "--proxy"),
    ('E', "--cert"),
    ('w', "--write-out"),
    ('D', "--dump-header"),
    ('#', "--progress-bar"),
];

/// Options of the message that have a value.
const WITH_VALUE: &[&str] = &[
    "--request",
    "--header",
    "--data",
    "--data-ascii",
    "--data-binary",
    "--data-raw",
    "--json",
    "--user-agent",
    "--referer",
    "--cookie",
    "--user",
    "--url",
];

const WITHOUT_VALUE: &[&str] = &["--get", "--head", "--compressed"];

/// The message of a command line; `read` gives the content of a file that it names with `@`.
pub fn message(command: &str, read: impl Fn(&Path) -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    let words = words(command)?;
    let mut words = words.iter().map(String::as_str);
    if words.next() != Some("curl") {
        return Err("a curl command line begins with `curl`".into());
    }
    let mut call = Call::default();
    let mut only_urls = false;
    while let Some(word) = words.next() {
        if only_urls || !word.starts_with('-') || word == "-" {
            call.url(word)?;
        } else if word == "--" {
            only_urls = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, given) = match long.split_once('=') {
                Some((name, value)) => (format!("--{name}"), Some(value.to_owned())),
                None => (word.to_owned(), None),
            };
            call.option(&name, given, &mut words, &read)?;
        } else {
            short(&mut call, &word[1..], &mut words, &read)?;
        }
    }
    call.message()
}

/// `-sSXPOST`: letters without a value, and one with it, which takes the rest of the word.
fn short<'w>(
    call: &mut Call,
    letters: &str,
    words: &mut impl Iterator<Item = &'w str>,
    read: &impl Fn(&Path) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    let mut rest = letters;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        let long = SHORT.iter().find(|(short, _)| *short == letter).map(|(_, long)| *long);
        let long = long.ok_or_else(|| unknown(&format!("-{letter}")))?;
        let takes_value = WITH_VALUE.contains(&long) || PASSED_OVER_WITH_VALUE.contains(&long);
        if takes_value {
            let given = (!rest.is_empty()).then(|| rest.to_owned());
            return call.option(long, given, words, read);
        }
        call.option(long, None, words, read)?;
    }
    Ok(())
}

fn unknown(option: &str) -> String {
    format!(
        "the option `{option}` is not known here, and may change what is sent: leave it out, or write the message as a raw HTTP request"
    )
}

#[derive(Default)]
struct Call {
    url: Option<String>,
    method: Option<String>,
    headers: Vec<(String, Option<String>)>,
    data: Option<Vec<u8>>,
    is_get: bool,
    is_head: bool,
    is_json: bool,
    is_compressed: bool,
}

impl Call {
    fn url(&mut self, url: &str) -> Result<(), String> {
        match self.url.replace(url.to_owned()) {
            None => Ok(()),
            Some(_) => Err("two URLs: put each request to policy on its own".into()),
        }
    }

    fn option<'w>(
        &mut self,
        name: &str,
        given: Option<String>,
        words: &mut impl Iterator<Item = &'w str>,
        read: &impl Fn(&Path) -> Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        if PASSED_OVER.contains(&name) || WITHOUT_VALUE.contains(&name) {
            if given.is_some() {
                return Err(format!("`{name}` has no value"));
            }
            match name {
                "--get" => self.is_get = true,
                "--head" => self.is_head = true,
                "--compressed" => self.is_compressed = true,
                _ => {}
            }
            return Ok(());
        }
        let is_known = WITH_VALUE.contains(&name) || PASSED_OVER_WITH_VALUE.contains(&name);
        if !is_known {
            return Err(unknown(name));
        }
        let value = match given {
            Some(value) => value,
            None => words.next().ok_or_else(|| format!("`{name}` needs a value"))?.to_owned(),
        };
        match name {
            "--request" => self.method = Some(value),
            "--url" => self.url(&value)?,
            "--header" => self.header(&value)?,
            "--user-agent" => self.headers.push(("User-Agent".into(), Some(value))),
            "--referer" => self.headers.push(("Referer".into(), Some(value))),
            "--cookie" if value.contains('=') => self.headers.push(("Cookie".into(), Some(value))),
            "--cookie" => return Err("`--cookie` with a file is not read here; give the header".into()),
            "--user" => self.headers.push(("Authorization".into(), Some("Basic (withheld)".into()))),
            "--data-raw" => self.add(value.into_bytes()),
            "--data" | "--data-ascii" => {
                let bytes = self.value_or_file(&value, read)?;
                let is_file = value.starts_with('@');
                // curl leaves line ends out of a file's content here, and only here.
                let kept = bytes.into_iter().filter(|b| !is_file || !matches!(b, b'\r' | b'\n' | 0));
                self.add(kept.collect());
            }
            "--data-binary" => {
                let bytes = self.value_or_file(&value, read)?;
                self.add(bytes);
            }
            "--json" => {
                let bytes = self.value_or_file(&value, read)?;
                match &mut self.data {
                    Some(data) if self.is_json => data.extend(bytes),
                    _ => self.add(bytes),
                }
                self.is_json = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn value_or_file(
        &self,
        value: &str,
        read: &impl Fn(&Path) -> Result<Vec<u8>, String>,
    ) -> Result<Vec<u8>, String> {
        match value.strip_prefix('@') {
            Some(file) => read(Path::new(file)),
            None => Ok(value.as_bytes().to_vec()),
        }
    }

    fn add(&mut self, bytes: Vec<u8>) {
        match &mut self.data {
            None => self.data = Some(bytes),
            Some(data) => {
                data.push(b'&');
                data.extend(bytes);
            }
        }
    }

    /// `Name: value`; `Name:` takes curl's own header of that name away, `Name;` sends it empty.
    fn header(&mut self, text: &str) -> Result<(), String> {
        if text.starts_with('@') {
            return Err("`--header @file` is not read here; give the headers".into());
        }
        match text.split_once(':') {
            Some((name, value)) => {
                let value = value.trim();
                self.headers.push((name.trim().to_owned(), (!value.is_empty()).then(|| value.to_owned())));
            }
            None => match text.strip_suffix(';') {
                Some(name) => self.headers.push((name.trim().to_owned(), Some(String::new()))),
                None => return Err(format!("`{text}` is no header: `Name: value`")),
            },
        }
        Ok(())
    }

    fn message(self) -> Result<Vec<u8>, String> {
        let url = self.url.as_deref().ok_or("there is no URL")?;
        let (authority, mut target) = split_url(url)?;
        let mut body = self.data;
        if self.is_get
            && let Some(data) = body.take()
        {
            let data = String::from_utf8(data).map_err(|_| "`--get` with data that is not UTF-8")?;
            target = format!("{target}{}{data}", if target.contains('?') { '&' } else { '?' });
        }
        let usual = match (self.is_head, body.is_some()) {
            (true, true) => return Err("`--head` with data: curl refuses that".into()),
            (true, false) => "HEAD",
            (false, true) => "POST",
            (false, false) => "GET",
        };
        let method = self.method.as_deref().unwrap_or(usual);
        let mut fields: Vec<(String, String)> = vec![
            ("Host".into(), authority),
            ("User-Agent".into(), "curl".into()),
            ("Accept".into(), "*/*".into()),
        ];
        if self.is_compressed {
            fields.push(("Accept-Encoding".into(), "deflate, gzip".into()));
        }
        if self.is_json {
            fields.retain(|(name, _)| name != "Accept");
            fields.push(("Accept".into(), "application/json".into()));
        }
        if let Some(body) = &body {
            let media_type =
                if self.is_json { "application/json" } else { "application/x-www-form-urlencoded" };
            fields.push(("Content-Type".into(), media_type.into()));
            fields.push(("Content-Length".into(), body.len().to_string()));
        }
        // A caller's own header stands in the place of curl's; several of one name are all sent.
        let is_own = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        fields.retain(|(name, _)| !is_own(name));
        fields.extend(self.headers.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))));
        if let Some((name, _)) = fields.iter().find(|(name, value)| has_line_end(name) || has_line_end(value))
        {
            return Err(format!("the header `{}` holds a line end", name.escape_debug()));
        }
        if has_line_end(method) || has_line_end(&target) {
            return Err("the method or the URL holds a line end".into());
        }
        let mut message = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in fields {
            message.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        message.extend_from_slice(b"\r\n");
        message.extend(body.unwrap_or_default());
        Ok(message)
    }
}

fn has_line_end(text: &str) -> bool {
    text.contains(['\r', '\n'])
}

/// Authority and target; what curl would change on the way is refused.
fn split_url(url: &str) -> Result<(String, String), String> {
    let rest = match url.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) => rest,
        Some((scheme, _)) => return Err(format!("`{scheme}` is neither http nor https")),
        None => url,
    };
    // A fragment is never sent.
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    if authority.contains('@') {
        return Err("a URL with a user in it: give `--actor` instead".into());
    }
    let target = match target.chars().next() {
        None => "/".to_owned(),
        Some('?') => format!("/{target}"),
        Some(_) => target.to_owned(),
    };
    if target.contains(['{', '}', '[', ']']) {
        return Err("curl takes braces and brackets in a URL as ranges: write them percent-encoded".into());
    }
    let path = target.split('?').next().unwrap_or_default();
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("curl takes dot segments out of a URL: write the path that is sent".into());
    }
    let default_port = if url.to_ascii_lowercase().starts_with("https://") { ":443" } else { ":80" };
    Ok((authority.strip_suffix(default_port).unwrap_or(authority).to_owned(), target))
}

/// The words of a POSIX shell's command line, with the quotes that browsers and people use. No expansion: what a shell
/// would put in is refused.
pub fn words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(inner) => word.push(inner),
                        None => return Err("a single quote is not closed".into()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                            Some('\n') => {}
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("a double quote is not closed".into()),
                        },
                        Some('$' | '`') => {
                            return Err("a shell would replace `$...` here: put in what it stands for".into());
                        }
                        Some(inner) => word.push(inner),
                        None => return Err("a double quote is not closed".into()),
                    }
                }
            }
            '$' if chars.peek() == Some(&'\'') => {
                chars.next();
                ansi_c(&mut chars, word.get_or_insert_default())?;
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some('\r') if chars.peek() == Some(&'\n') => {
                    chars.next();
                }
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("the command ends with a backslash".into()),
            },
            c if c.is_whitespace() && c != '\n' => words.extend(word.take()),
            '\n' => {
                words.extend(word.take());
                if chars.peek().is_some() {
                    return Err("more than one line: a line goes on with a backslash at its end".into());
                }
            }
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' => {
                return Err(format!("`{c}` means something to a shell: quote it, or leave it out"));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// `$'...'`, as browsers copy bodies.
fn ansi_c(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next() {
            Some('\'') => return Ok(()),
            Some('\\') => match chars.next() {
                Some('n') => word.push('\n'),
                Some('r') => word.push('\r'),
                Some('t') => word.push('\t'),
                Some(escaped @ ('\\' | '\'' | '"' | '!')) => word.push(escaped),
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    word.push(code.ok_or("an escape that is no character")?);
                }
                _ => return Err("an escape in `$'...'` that is not known here".into()),
            },
            Some(inner) => word.push(inner),
            None => return Err("a single quote is not closed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Result<String, String> {
        let read = |path: &Path| match path.to_str() {
            Some("body.json") => Ok(b"{\"a\":\n1}".to_vec()),
            _ => Err("no such file".into()),
        };
        message(command, read).map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
    }

    #[test]
    fn a_command_is_the_message_that_curl_sends() {
        assert_eq!(
            of("curl https://api.example:443/v1/x?y=1#z").as_deref(),
            Ok("GET /v1/x?y=1 HTTP/1.1\r\nHost: api.example\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n")
        );
        let posted = of(
            "curl -sSXPUT 'http://h:8080/a' \\\n  -H 'Content-Type: application/json' -H accept: --data-binary @body.json",
        );
        let expected = "PUT /a HTTP/1.1\r\nHost: h:8080\r\nUser-Agent: curl\r\nContent-Length: 8\r\nContent-Type: application/json\r\n\r\n{\"a\":\n1}";
        assert_eq!(posted.as_deref(), Ok(expected));
        let form = of("curl h/a -d a=1 --data-raw 'b=@2' -d @body.json").expect("a form");
        assert!(form.starts_with("POST /a HTTP/1.1\r\nHost: h\r\n"), "{form}");
        assert!(form.contains("Content-Type: application/x-www-form-urlencoded\r\n"), "{form}");
        assert!(form.ends_with("\r\n\r\na=1&b=@2&{\"a\":1}"), "{form}");
        let json = of("curl h --json '{\"a\":\"it'\\''s\"}'").expect("JSON");
        assert!(
            json.contains("Accept: application/json\r\n") && json.ends_with("{\"a\":\"it's\"}"),
            "{json}"
        );
        let get = of("curl -G h/a?b=1 -d c=2").expect("a query");
        assert!(get.starts_with("GET /a?b=1&c=2 HTTP/1.1\r\n"), "{get}");
        let browser = of("curl h/a --data-raw $'{\"n\":\"\\u0041\\n\"}' --compressed").expect("copied");
        assert!(
            browser.ends_with("{\"n\":\"A\n\"}") && browser.contains("Accept-Encoding: deflate, gzip"),
            "{browser}"
        );
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (command, part) in [
            ("wget h", "begins with `curl`"),
            ("curl", "no URL"),
            ("curl h g", "two URLs"),
            ("curl -F a=b h", "`-F`"),
            ("curl --form a=b h", "`--form`"),
            ("curl h/a/../b", "dot segments"),
            ("curl 'h/{a,b}'", "ranges"),
            ("curl ftp://h/a", "ftp"),
            ("curl 'http://u:p@h/'", "--actor"),
            ("curl h -d @none", "no such file"),
            ("curl h -H 'a'", "is no header"),
            ("curl h -H \"a: $TOKEN\"", "replace"),
            ("curl h | jq .", "`|`"),
            ("curl 'h", "not closed"),
            ("curl h -X", "needs a value"),
            ("curl h\ncurl g", "more than one line"),
            ("curl h -H $'a: b\\r\\nc: d'", "line end"),
            ("curl -I h -d a", "curl refuses that"),
        ] {
            let error = of(command).expect_err(command);
            assert!(error.contains(part), "{command}: {error}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { cases: 2_000, failure_persistence: None, ..Default::default() })]

        /// Any text is a message of one head, or refused.
        #[test]
        fn no_command_line_makes_two_heads(rest in "[ -~\\n\u{e9}]{0,60}", header in "\\PC{0,20}", data in "\\PC{0,20}") {
            let whole = format!("curl h/a -H '{}' -d '{}' {rest}", header.replace('\'', ""), data.replace('\'', ""));
            if let Ok(message) = message(&whole, |_| Err("no file".into())) {
                let end = message.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
                let head = String::from_utf8(message[..end].to_vec()).expect("UTF-8");
                let lines: Vec<&str> = head.split("\r\n").collect();
                proptest::prop_assert!(lines[0].ends_with(" HTTP/1.1"), "{whole}");
                proptest::prop_assert!(lines.iter().all(|line| !line.contains(['\r', '\n'])), "{whole}");
            }
        }
    }
}
