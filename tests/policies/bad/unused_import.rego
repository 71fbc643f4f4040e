# expect unused_import at 4:1
package gateway.payments

import data.ref.limits

permit contains "may_list" if input.action == "charge.list"

deny contains "x" if input.actor.id == "x"
