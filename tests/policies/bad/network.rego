# expect builtin_refused at 6
package gateway.payments

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if http.send({"method": "get", "url": "http://a.example"}).status_code != 200
