package shim

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"fovea.dev/node/internal/shimapi"
)

func (s *shim) serveExec(socket *net.UnixListener) {
	for {
		conn, err := socket.AcceptUnix()
		if err != nil {
			return
		}
		go s.exec(conn)
	}
}

// exec runs one program in the container; if the client goes away the program's whole process group is killed.
func (s *shim) exec(conn *net.UnixConn) {
	defer conn.Close()
	reply := func(r shimapi.ExecReply) {
		b, _ := json.Marshal(r)
		_, _ = conn.Write(b)
	}
	request, passed, err := receive(conn)
	defer func() {
		for _, f := range passed {
			f.Close()
		}
	}()
	if err != nil {
		reply(shimapi.ExecReply{Code: 126, Error: err.Error()})
		return
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		reply(shimapi.ExecReply{Code: 126, Error: err.Error()})
		return
	}
	defer null.Close()
	stdio := []*os.File{null, null, null}
	next := 0
	for i := range stdio {
		if request.Streams[i] && next < len(passed) {
			stdio[i] = passed[next]
			next++
		}
	}
	if request.TTY {
		// Opened here: ttyname() works only with a pty of the container's own devpts.
		master, slave, err := openPty()
		if err != nil {
			reply(shimapi.ExecReply{Code: 126, Error: "pty: " + err.Error()})
			return
		}
		defer slave.Close()
		stdio = []*os.File{slave, slave, slave}
		_, _, err = conn.WriteMsgUnix([]byte{shimapi.PtyFollows}, syscall.UnixRights(int(master.Fd())), nil)
		master.Close()
		if err != nil {
			return
		}
	}
	pid, ended, err := s.processes.start(request.Argv, s.container.Env, s.container.Cwd, stdio, request.TTY)
	if err != nil {
		reply(shimapi.ExecReply{Code: 127, Error: err.Error()})
		return
	}
	// The program alone holds its streams from here, so that their end is seen when it ends.
	for _, f := range passed {
		f.Close()
	}
	gone := make(chan struct{})
	go func() { _, _ = conn.Read(make([]byte, 1)); close(gone) }()
	select {
	case status := <-ended:
		code := status.ExitStatus()
		if status.Signaled() {
			code = 128 + int(status.Signal())
		}
		reply(shimapi.ExecReply{Code: code})
	case <-gone:
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-ended
	}
}

func receive(conn *net.UnixConn) (shimapi.ExecRequest, []*os.File, error) {
	var request shimapi.ExecRequest
	data, oob := make([]byte, shimapi.MaxExecRequestBytes), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return request, nil, err
	}
	var files []*os.File
	messages, _ := syscall.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, _ := syscall.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	if err := json.Unmarshal(data[:n], &request); err != nil {
		return request, files, fmt.Errorf("exec request: %w", err)
	}
	if len(request.Argv) == 0 {
		return request, files, fmt.Errorf("exec request: no command")
	}
	return request, files, nil
}

func openPty() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
