package ipmi

import (
	"context"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// selectors says how a boot device is spoken in the boot flags (table 28-14).
var selectors = map[power.BootDevice]types.BootDeviceSelector{
	power.BootNone:  types.BootDeviceSelectorNoOverride,
	power.BootPXE:   types.BootDeviceSelectorForcePXE,
	power.BootDisk:  types.BootDeviceSelectorForceHardDrive,
	power.BootCDROM: types.BootDeviceSelectorForceCDROM,
	power.BootBIOS:  types.BootDeviceSelectorForceBIOSSetup,
}

// setInProgress is boot option parameter 0.
type setInProgress byte

const (
	setComplete setInProgress = 0
	setStarted  setInProgress = 1
)

// SetBoot implements power.Driver: boot flags that are valid for the next boot
// only (section 28.12). BootNone takes them back.
//
// Around the flags it says that the parameters are being changed, that the boot
// information awaits the BIOS, and that the flags shall not lapse 60 s from now;
// BMCs that know none of these do as well. Each step may arrive twice.
func (s *session) SetBoot(ctx context.Context, dev power.BootDevice) error {
	const op = "set boot device"
	selector, known := selectors[dev]
	if !known {
		return &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf("IPMI has no boot device %q", dev)}
	}
	defer s.link.watch(ctx)()
	if err := s.stays(ctx, op, 0); err != nil {
		return err
	}
	if err := s.raise(ctx, op, types.PrivilegeLevelOperator); err != nil {
		return err
	}
	flags := types.BootOptionParam_BootFlags{
		BootFlagsValid:     dev != power.BootNone,
		BIOSBootType:       types.BIOSBootType(dev != power.BootNone && !s.ep.LegacyBoot),
		BootDeviceSelector: selector,
	}
	acknowledge := types.BootOptionParam_BootInfoAcknowledge{ByBIOSPOST: true}
	keep := types.BootOptionParam_BMCBootFlagValidBitClear{DontClearOnCommandReceivedTimeout: true}
	steps := []struct {
		param types.BootOptionParamSelector
		data  []byte
		must  bool
	}{
		{types.BootOptionParamSelector_SetInProgress, []byte{byte(setStarted)}, false},
		{types.BootOptionParamSelector_BootInfoAcknowledge, acknowledge.Pack(), false},
		{types.BootOptionParamSelector_BMCBootFlagValidBitClear, keep.Pack(), false},
		{types.BootOptionParamSelector_BootFlags, flags.Pack(), true},
		{types.BootOptionParamSelector_SetInProgress, []byte{byte(setComplete)}, false},
	}
	var refused error
	for _, step := range steps {
		err := s.setBootOption(ctx, op, step.param, step.data)
		switch {
		case err == nil:
		case err.Lost || err.Kind == power.KindCanceled:
			return err
		case step.must:
			refused = err // the last step still comes
		default:
			s.cfg.Log.Debug("boot option refused", "param", step.param, "err", err)
		}
	}
	return refused
}

func (s *session) setBootOption(ctx context.Context, op string, param types.BootOptionParamSelector, data []byte) *power.Error {
	req := chassis.SetSystemBootOptionsParamRequest{ParamSelector: param, ParamData: data}
	_, err := s.call(ctx, op, req.Command(), req.Pack(), s.reading())
	if err != nil {
		err.Sent = false
	}
	return err
}
