-- Those commands of ejabberd's management interface that tests use, for a prosody of a lab: the same arguments and
-- answers, as far as anybody reads them. Loaded by the virtual host; POST /api/COMMAND with a JSON object.

local hostmanager = require "core.hostmanager";
local usermanager = require "core.usermanager";
local json = require "util.json";
local jid_bare = require "util.jid".bare;
local jid_split = require "util.jid".split;

module:depends("http");

local offline = module:open_store("offline", "archive");
local commands = {};

local function array_of(iterator, ...)
	local found = {};
	for item in iterator, ... do
		table.insert(found, item);
	end
	return found;
end

local function rooms_of(service)
	local host = prosody.hosts[service];
	return host and host.modules.muc;
end

local function room_of(arguments)
	local muc = rooms_of(arguments.service);
	local room = muc and muc.get_room_from_jid(arguments.name.."@"..arguments.service);
	return room or error("room_does_not_exist", 0);
end

function commands.status()
	return "prosody serves";
end

function commands.register(arguments)
	if usermanager.user_exists(arguments.user, arguments.host) then
		error("the account exists", 0);
	end
	assert(usermanager.create_user(arguments.user, arguments.password, arguments.host));
	return "registered";
end

function commands.change_password(arguments)
	assert(usermanager.set_password(arguments.user, arguments.newpass, arguments.host));
	return 0;
end

function commands.registered_users(arguments)
	return array_of(usermanager.users(arguments.host));
end

function commands.connected_users()
	return array_of(pairs(prosody.full_sessions));
end

function commands.kick_user(arguments)
	local sessions = prosody.bare_sessions[arguments.user.."@"..arguments.host];
	local kicked = 0;
	for _, session in pairs(sessions and sessions.sessions or {}) do
		session:close({ condition = "policy-violation", text = "has been kicked" });
		kicked = kicked + 1;
	end
	return kicked;
end

function commands.get_offline_count(arguments)
	local found, total = offline:find(arguments.user, { total = true });
	return { value = found and total or 0 };
end

function commands.muc_online_rooms(arguments)
	local found = {};
	for name in pairs(prosody.hosts) do
		local muc = rooms_of(name);
		if muc and (arguments.service == "global" or arguments.service == name) then
			for room in muc.live_rooms() do
				table.insert(found, room.jid);
			end
		end
	end
	return found;
end

function commands.get_room_occupants(arguments)
	local found = {};
	for _, occupant in room_of(arguments):each_occupant() do
		local _, _, nick = jid_split(occupant.nick);
		table.insert(found, { jid = occupant.jid, nick = nick, role = occupant.role });
	end
	return found;
end

function commands.get_room_occupants_number(arguments)
	return { occupants = #commands.get_room_occupants(arguments) };
end

function commands.get_room_options(arguments)
	local room = room_of(arguments);
	local options = {
		persistent = room:get_persistent(); members_only = room:get_members_only();
		anonymous = room:get_whois() ~= "anyone"; public = room:get_public();
		moderated = room:get_moderated(); title = room:get_name();
	};
	local found = {};
	for name, value in pairs(options) do
		table.insert(found, { [name] = tostring(value or false) });
	end
	return found;
end

function commands.get_room_affiliations(arguments)
	local found = {};
	for jid, affiliation in room_of(arguments):each_affiliation() do
		local username, domain = jid_split(jid);
		table.insert(found, { username = username, domain = domain, affiliation = affiliation });
	end
	return found;
end

function commands.set_room_affiliation(arguments)
	assert(room_of(arguments):set_affiliation(true, jid_bare(arguments.jid), arguments.affiliation));
	return 0;
end

function commands.destroy_room(arguments)
	room_of(arguments):destroy();
	return 0;
end

-- Not ejabberd's, where it is done by the configuration: a service of the server goes and comes.

function commands.withdraw(arguments)
	assert(hostmanager.deactivate(arguments.service));
	return 0;
end

function commands.offer(arguments)
	assert(hostmanager.activate(arguments.service));
	return 0;
end

-- Keys in a fixed order, in which ejabberd has them too.
local order = { "jid", "nick", "role", "username", "domain", "affiliation" };

local function encode(value)
	if type(value) ~= "table" then
		return json.encode(value);
	end
	local parts = {};
	if next(value) == nil or value[1] ~= nil then
		for _, item in ipairs(value) do
			table.insert(parts, encode(item));
		end
		return "["..table.concat(parts, ",").."]";
	end
	local function add(key)
		table.insert(parts, json.encode(key)..":"..encode(value[key]));
	end
	local known = {};
	for _, key in ipairs(order) do
		known[key] = true;
		if value[key] ~= nil then add(key); end
	end
	for key in pairs(value) do
		if not known[key] then add(key); end
	end
	return "{"..table.concat(parts, ",").."}";
end

module:provides("http", {
	default_path = "/api";
	route = {
		["POST /*"] = function (event, name)
			event.response.headers.content_type = "application/json";
			local command = commands[name];
			if not command then return 404; end
			local ok, answer = pcall(command, json.decode(event.request.body) or {});
			if not ok then
				event.response.status_code = 400;
				return encode(tostring(answer));
			end
			return encode(answer);
		end;
	};
});

-- For the log: what ejabberd says of logins, too.
module:hook("authentication-failure", function (event)
	module:log("warn", "Refused login: %s %s", event.condition, event.text or "");
end);

module:hook("resource-bind", function (event)
	module:log("info", "Opened session of %s", event.session.full_jid);
end);
